//! One thread a core: epoll loop, sockets, steering, batching.
