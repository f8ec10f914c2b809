/* Named by BCC's own headers; nothing in it is needed to compile flows.bpf.c. */
