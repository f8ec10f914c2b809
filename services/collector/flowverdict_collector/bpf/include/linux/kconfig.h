/* BCC's headers refuse to compile where the kernel has no bpf(2). */
#define CONFIG_BPF_SYSCALL 1
