/* Read only by kprobe programs on kernels before 5.0; there are none here. */
#define KERNEL_VERSION(major, minor, patch) (((major) << 16) + ((minor) << 8) + (patch))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 15, 0)
