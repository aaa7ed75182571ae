// Gives programs on Linux another kernel's answers to calls on Unix domain sockets.
//
// scripts/kernels.sh links this before libc into each program of a build, with the system fixed by
// -DSYSTEM=DARWIN, FREEBSD, NETBSD or OPENBSD. It shows how our code handles an answer, not that a kernel
// gives it. The answers were read in the kernels' sources, which the comments below name. XNU is version
// 11417 (macOS 15.4). FreeBSD's, NetBSD's and OpenBSD's sources are their uipc_usrreq.c and uipc_socket.c.
//
// A library cannot give these answers: kqueue's readiness, SIGPIPE without SO_NOSIGPIPE, the lack of accept4
// (the types show that), the length of sun_path (tested without this), reads that end before descriptors
// rather than behind them, and races as such.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define DARWIN 1
#define FREEBSD 2
#define NETBSD 3
#define OPENBSD 4

// Finds the function that this library replaces.
#define REAL(name) \
    static _Atomic(void *) known; \
    if (atomic_load(&known) == NULL) atomic_store(&known, dlsym(RTLD_NEXT, #name)); \
    __typeof__(&name) real = (__typeof__(&name))atomic_load(&known)

#define MIB (1024 * 1024)

// The state of a descriptor. A copy of the descriptor has a state of its own.
struct state {
    int pair;         // made by socketpair(2)
    int largest;      // its send buffer has the largest size already
    int size;         // what was asked for, 0 for nothing
    char *kept;       // bytes of a read that failed
    size_t kept_from, kept_to;
};

#define STATES 65536
static struct state states[STATES];

static struct state *state_of(int fd) {
    static struct state none;
    return fd >= 0 && fd < STATES ? &states[fd] : &none;
}

static void forget(int fd) {
    struct state *state = state_of(fd);
    free(state->kept);
    memset(state, 0, sizeof *state);
}

// ---- what the real kernel says ---------------------------------------------------

static int real_getsockopt(int fd, int level, int name, void *value, socklen_t *length) {
    REAL(getsockopt);
    return real(fd, level, name, value, length);
}

static int option(int fd, int name) {
    int value = 0, before = errno;
    socklen_t length = sizeof value;
    if (real_getsockopt(fd, SOL_SOCKET, name, &value, &length) != 0) value = -1;
    errno = before;
    return value;
}

static int is_unix(int fd) {
    return option(fd, SO_DOMAIN) == AF_UNIX && option(fd, SO_TYPE) == SOCK_STREAM;
}

static int ready(int fd, short what) {
    int before = errno;
    struct pollfd one = {fd, what, 0};
    int got = poll(&one, 1, 0);
    errno = before;
    return got > 0 ? one.revents : 0;
}

static int real_getpeername(int fd, struct sockaddr *address, socklen_t *length) {
    REAL(getpeername);
    return real(fd, address, length);
}

static int has_peer(int fd) {
    int before = errno;
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    int got = real_getpeername(fd, (struct sockaddr *)&address, &length);
    errno = before;
    return got == 0;
}

static int is_gone(int fd) { return has_peer(fd) && (ready(fd, 0) & POLLHUP); }

static int fail(int with) {
    errno = with;
    return -1;
}

static ssize_t real_recvmsg(int fd, struct msghdr *message, int flags) {
    REAL(recvmsg);
    return real(fd, message, flags);
}

static int real_close(int fd) {
    REAL(close);
    return real(fd);
}

#if SYSTEM == DARWIN
static size_t total_of(const struct iovec *parts, size_t count) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++) total += parts[i].iov_len;
    return total;
}
#endif

// ---- making and ending -----------------------------------------------------------

int socket(int domain, int type, int protocol) {
    REAL(socket);
    int fd = real(domain, type, protocol);
    forget(fd);
    return fd;
}

int socketpair(int domain, int type, int protocol, int pair[2]) {
    REAL(socketpair);
    int done = real(domain, type, protocol, pair);
    if (done == 0) {
        for (int i = 0; i < 2; i++) {
            forget(pair[i]);
            state_of(pair[i])->pair = 1;
        }
    }
    return done;
}

int close(int fd) {
    forget(fd);
    return real_close(fd);
}

// ---- connecting and accepting ----------------------------------------------------

static int real_connect(int fd, const struct sockaddr *address, socklen_t length) {
    REAL(connect);
    return real(fd, address, length);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    if (!is_unix(fd)) return real_connect(fd, address, length);
    // XNU soconnectlock, FreeBSD soconnectat, NetBSD and OpenBSD soconnect: they refuse a listening socket
    // first, then a connected one. unp_connect checks the address last.
    if (length <= 2) {
        if (option(fd, SO_ACCEPTCONN) == 1) return fail(EOPNOTSUPP);
        return fail(has_peer(fd) ? EISCONN : EINVAL);
    }
    // All of them, unp_connect: if the queue is full, the call fails with ECONNREFUSED at once (sonewconn).
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK)) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    int done = real_connect(fd, address, length);
    if (done != 0 && errno == EAGAIN) errno = ECONNREFUSED;
    int error = errno;
    if (flags >= 0 && !(flags & O_NONBLOCK)) fcntl(fd, F_SETFL, flags);
    errno = error;
    return done;
}

int listen(int fd, int backlog) {
    REAL(listen);
#if SYSTEM == NETBSD
    // solisten: "if (backlog < 0) backlog = 0".
    if (backlog < 0) backlog = 0;
#elif SYSTEM == DARWIN
    // solisten: "if (backlog <= 0 || backlog > somaxconn) backlog = somaxconn".
    if (backlog <= 0 || backlog > 128) backlog = 128;
#endif
    return real(fd, backlog);
}

static int real_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    REAL(accept4);
    return real(fd, address, length, flags);
}

#if SYSTEM == DARWIN
// This thread has its own table of descriptors, with only the socket in it, so that there is room.
static void *drop_client(void *socket) {
    int fd = *(int *)socket;
    if (unshare(CLONE_FILES) != 0) return NULL;
    for (int other = 0; other < 1024; other++) {
        if (other != fd) real_close(other);
    }
    int client = real_accept4(fd, NULL, NULL, SOCK_NONBLOCK);
    if (client >= 0) real_close(client);
    return NULL;
}

// XNU accept_nocancel: when falloc finds no descriptor, the client is already off the queue, and is not put
// back ("Don't put this back on the socket like we used to").
static int accept_without_room(int fd) {
    if (!(ready(fd, POLLIN) & POLLIN)) {
        if (fcntl(fd, F_GETFL) & O_NONBLOCK) return fail(EAGAIN);
        struct pollfd one = {fd, POLLIN, 0};
        poll(&one, 1, -1);
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, drop_client, &fd) == 0) pthread_join(thread, NULL);
    return fail(EMFILE);
}
#endif

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    int client = real_accept4(fd, address, length, flags);
#if SYSTEM == DARWIN
    if (client < 0 && (errno == EMFILE || errno == ENFILE) && is_unix(fd)) return accept_without_room(fd);
#endif
    if (client >= 0) {
        forget(client);
        // sonewconn: the client's buffers have the sizes of the listener's.
        state_of(client)->largest = state_of(fd)->largest;
        state_of(client)->size = state_of(fd)->size;
    }
    return client;
}

int accept(int fd, struct sockaddr *address, socklen_t *length) { return accept4(fd, address, length, 0); }

// ---- names and options -----------------------------------------------------------

int getpeername(int fd, struct sockaddr *address, socklen_t *length) {
    // unp_disconnect clears SS_ISCONNECTED on both ends. XNU getpeername fails with EINVAL if both directions
    // are closed, which soisdisconnected has done. The others fail with ENOTCONN.
    if (is_unix(fd) && is_gone(fd)) return fail(SYSTEM == DARWIN ? EINVAL : ENOTCONN);
    return real_getpeername(fd, address, length);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *length) {
    if (level == SOL_SOCKET && is_unix(fd)) {
#if SYSTEM == DARWIN || SYSTEM == OPENBSD
        // XNU sogetoptlock has no such case, and neither has older OpenBSD.
        if (name == SO_ACCEPTCONN) return fail(ENOPROTOOPT);
#endif
#if SYSTEM == NETBSD
        // unp_connect2 sets UNP_EIDSVALID only for connect. Without it LOCAL_PEEREID fails with EINVAL.
        if (name == SO_PEERCRED && state_of(fd)->pair) return fail(EINVAL);
#endif
        if (name == SO_SNDBUF && state_of(fd)->size != 0 && *length >= sizeof(int)) {
            memcpy(value, &state_of(fd)->size, sizeof(int));
            *length = sizeof(int);
            return 0;
        }
    }
    return real_getsockopt(fd, level, name, value, length);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t length) {
    REAL(setsockopt);
    if (level != SOL_SOCKET || !is_unix(fd)) return real(fd, level, name, value, length);
    int is_size = name == SO_SNDBUF || name == SO_RCVBUF;
    // XNU sosetoptlock: if both directions are closed, the call fails with EINVAL. OpenBSD sosetopt: the same
    // for the sizes.
    if ((SYSTEM == DARWIN || (SYSTEM == OPENBSD && is_size)) && is_gone(fd)) return fail(EINVAL);
    if (name == SO_SNDBUF && length >= sizeof(int)) {
        int size;
        memcpy(&size, value, sizeof size);
        struct state *state = state_of(fd);
#if SYSTEM == DARWIN
        // sbreserve: the size is capped at kern.ipc.maxsockbuf. A socket that has that size already gets
        // ENOBUFS.
        int limit = 8 * MIB;
        if (size > limit && state->largest) return fail(ENOBUFS);
        state->largest = size >= limit;
        if (size > limit) size = limit;
#else
        // sbreserve: a size above the limit fails with ENOBUFS. The limits are FreeBSD's sb_max_adj of 2 MiB,
        // NetBSD's 256 KiB and OpenBSD's 2 MiB.
        int limit = SYSTEM == FREEBSD ? 1864135 : SYSTEM == NETBSD ? MIB / 4 : 2 * MIB;
        if (size > limit) return fail(ENOBUFS);
#endif
        int done = real(fd, level, name, &size, sizeof size);
        if (done == 0) state->size = size;
        return done;
    }
    return real(fd, level, name, value, length);
}

int shutdown(int fd, int how) {
    REAL(shutdown);
    if (is_unix(fd)) {
        // XNU soshutdown, FreeBSD uipc_shutdown: the call fails with ENOTCONN once the peer is gone.
        if (is_gone(fd)) return fail(ENOTCONN);
        // XNU also fails so for a listening socket, and leaves it unchanged.
        if (SYSTEM == DARWIN && option(fd, SO_ACCEPTCONN) == 1) return fail(ENOTCONN);
    }
    return real(fd, how);
}

// ---- receiving -------------------------------------------------------------------

union control {
    char bytes[8192];
    struct cmsghdr aligned;
};

#if SYSTEM == DARWIN
static void scatter(const struct iovec *parts, size_t count, const char *from, size_t length) {
    for (size_t i = 0; i < count && length > 0; i++) {
        size_t here = parts[i].iov_len < length ? parts[i].iov_len : length;
        memcpy(parts[i].iov_base, from, here);
        from += here;
        length -= here;
    }
}

static ssize_t kept_bytes(int fd, const struct msghdr *message, size_t total, int flags) {
    struct state *state = state_of(fd);
    size_t length = state->kept_to - state->kept_from;
    if (length > total) length = total;
    scatter(message->msg_iov, message->msg_iovlen, state->kept + state->kept_from, length);
    if (!(flags & MSG_PEEK)) state->kept_from += length;
    if (state->kept_from == state->kept_to) {
        free(state->kept);
        state->kept = NULL;
    }
    return (ssize_t)length;
}

// Passes on the kernel's control data as far as the caller has room. Descriptors that do not fit stay open.
static void hand_on(const struct msghdr *got, char *to, size_t room, struct msghdr *message) {
    message->msg_flags = got->msg_flags & ~MSG_CTRUNC;
    size_t used = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(got); c != NULL; c = CMSG_NXTHDR((struct msghdr *)got, c)) {
        size_t length = c->cmsg_len - CMSG_LEN(0);
        if (to == NULL) break;
        if (room - used < CMSG_LEN(sizeof(int))) {
            message->msg_flags |= MSG_CTRUNC;
            break;
        }
        if (CMSG_LEN(length) > room - used) {
            message->msg_flags |= MSG_CTRUNC;
            length = (room - used - CMSG_LEN(0)) / sizeof(int) * sizeof(int);
        }
        struct cmsghdr *copy = (struct cmsghdr *)(to + used);
        copy->cmsg_len = CMSG_LEN(length);
        copy->cmsg_level = c->cmsg_level;
        copy->cmsg_type = c->cmsg_type;
        memcpy(CMSG_DATA(copy), CMSG_DATA(c), length);
        used += CMSG_SPACE(length) < room - used ? CMSG_SPACE(length) : room - used;
    }
    message->msg_controllen = used;
}

// XNU soreceive_ctl: descriptors are installed in the table (dom_externalize) whether or not there is room
// for their numbers. If the table is full, they are lost, the call fails with EMSGSIZE, and the bytes stay.
static ssize_t receive_installing(int fd, struct msghdr *message, struct msghdr *call, int flags) {
    union control room;
    char *to = message->msg_control;
    size_t to_length = to == NULL ? 0 : message->msg_controllen;
    call->msg_control = room.bytes;
    call->msg_controllen = sizeof room.bytes;
    if (flags & MSG_PEEK) {
        call->msg_control = NULL;
        call->msg_controllen = 0;
    }
    ssize_t got = real_recvmsg(fd, call, flags);
    if (got < 0 || (flags & MSG_PEEK)) return got;
    int full = (call->msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(call); c != NULL; c = CMSG_NXTHDR(call, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        int *fds = (int *)CMSG_DATA(c);
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            forget(fds[i]);
            if (full) real_close(fds[i]);
        }
    }
    if (full && got > 0) {
        struct state *state = state_of(fd);
        state->kept = malloc((size_t)got);
        state->kept_from = 0;
        state->kept_to = (size_t)got;
        char *end = state->kept;
        for (size_t i = 0; i < call->msg_iovlen && end < state->kept + got; i++) {
            size_t here = (size_t)(state->kept + got - end);
            if (here > call->msg_iov[i].iov_len) here = call->msg_iov[i].iov_len;
            memcpy(end, call->msg_iov[i].iov_base, here);
            end += here;
        }
        return fail(EMSGSIZE);
    }
    hand_on(call, to, to_length, message);
    return got;
}
#endif

static ssize_t receive(int fd, struct msghdr *message, int flags) {
#if SYSTEM == DARWIN
    // XNU soreceive, recvit.
    size_t total = total_of(message->msg_iov, message->msg_iovlen);
    if (total > INT_MAX) return fail(EINVAL);
    if (state_of(fd)->kept != NULL && total > 0) {
        message->msg_flags = 0;
        message->msg_controllen = 0;
        return kept_bytes(fd, message, total, flags);
    }
#endif
    struct msghdr call = *message;
#if SYSTEM == DARWIN
    ssize_t got = receive_installing(fd, message, &call, flags);
#else
    ssize_t got = real_recvmsg(fd, &call, flags);
    message->msg_flags = call.msg_flags;
    message->msg_controllen = call.msg_controllen;
    message->msg_namelen = call.msg_namelen;
    // Without any room there is no MSG_CTRUNC: recvit checks only if there is some room.
    if (message->msg_control == NULL) message->msg_flags &= ~MSG_CTRUNC;
#endif
    // Only Linux reports this, for a peer that closed without reading all bytes.
    if (got < 0 && errno == ECONNRESET) return 0;
    return got;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    if (!is_unix(fd)) return real_recvmsg(fd, message, flags);
    return receive(fd, message, flags);
}

static ssize_t receive_into(int fd, void *to, size_t length, int flags) {
    struct iovec part = {to, length};
    struct msghdr message = {0};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    return receive(fd, &message, flags);
}

ssize_t recv(int fd, void *to, size_t length, int flags) {
    REAL(recv);
    return is_unix(fd) ? receive_into(fd, to, length, flags) : real(fd, to, length, flags);
}

ssize_t recvfrom(int fd, void *to, size_t length, int flags, struct sockaddr *address, socklen_t *size) {
    REAL(recvfrom);
    if (!is_unix(fd)) return real(fd, to, length, flags, address, size);
    if (size != NULL) *size = 0;
    return receive_into(fd, to, length, flags);
}

ssize_t read(int fd, void *to, size_t length) {
    REAL(read);
    return is_unix(fd) ? receive_into(fd, to, length, 0) : real(fd, to, length);
}

ssize_t readv(int fd, const struct iovec *parts, int count) {
    REAL(readv);
    if (!is_unix(fd) || count < 0) return real(fd, parts, count);
    struct msghdr message = {0};
    message.msg_iov = (struct iovec *)parts;
    message.msg_iovlen = (size_t)count;
    return receive(fd, &message, 0);
}

// ---- sending ---------------------------------------------------------------------

// Chooses the error for a peer that is gone. sosend checks before it copies, and the protocol checks after
// that. A close in between fails with ENOTCONN (XNU uipc_send, NetBSD, FreeBSD before 15), here every second
// time.
static ssize_t sent(ssize_t length, int flags) {
    static atomic_uint times;
    if (length < 0 && errno == ECONNRESET) errno = EPIPE;
    if (length < 0 && errno == EPIPE && (flags & MSG_NOSIGNAL) && SYSTEM != OPENBSD) {
        errno = atomic_fetch_add(&times, 1) % 2 == 0 ? ENOTCONN : EPIPE;
    }
    return length;
}

static size_t rights_in(const struct msghdr *message) {
    size_t count = 0;
    if (message->msg_control == NULL) return 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR((struct msghdr *)message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            count += (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        }
    }
    return count;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    REAL(sendmsg);
    if (!is_unix(fd)) return real(fd, message, flags);
#if SYSTEM == DARWIN
    // XNU sosend. sosendcheck looks at SS_NBIO and MSG_NBIO, and not at MSG_DONTWAIT.
    if (total_of(message->msg_iov, message->msg_iovlen) > INT_MAX) return fail(EINVAL);
    flags &= ~MSG_DONTWAIT;
#endif
    size_t rights = rights_in(message);
#if SYSTEM == DARWIN || SYSTEM == NETBSD
    // sosend: "clen > so->so_snd.sb_hiwat" fails with EMSGSIZE, even for a blocking socket, and uipc_send
    // lowers sb_hiwat by the bytes that the peer has not read.
    if (rights > 0 && !(ready(fd, POLLOUT) & POLLOUT)) return fail(EMSGSIZE);
#elif SYSTEM == OPENBSD
    // unp_internalize: each descriptor takes 16 bytes, and all are in one cluster of 2048.
    if (rights > 127) return fail(E2BIG);
#endif
    (void)rights;
    return sent(real(fd, message, flags), flags);
}

static ssize_t send_from(int fd, const void *from, size_t length, int flags) {
    struct iovec part = {(void *)from, length};
    struct msghdr message = {0};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    return sendmsg(fd, &message, flags);
}

ssize_t send(int fd, const void *from, size_t length, int flags) {
    REAL(send);
    return is_unix(fd) ? send_from(fd, from, length, flags) : real(fd, from, length, flags);
}

ssize_t sendto(int fd, const void *from, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
    REAL(sendto);
    if (to == NULL && is_unix(fd)) return send_from(fd, from, length, flags);
    return real(fd, from, length, flags, to, size);
}

// ---- files -----------------------------------------------------------------------

// Sets the error of open(2) for a link that must not be followed: ELOOP on Linux, macOS and OpenBSD.
static int opened(int fd, int flags) {
    if (fd < 0 && errno == ELOOP && (flags & O_NOFOLLOW)) {
#if SYSTEM == FREEBSD
        errno = EMLINK;
#elif SYSTEM == NETBSD
        errno = 79; // EFTYPE
#endif
    }
    return fd;
}

int open(const char *path, int flags, ...) {
    REAL(open);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return opened(real(path, flags, mode), flags);
}

int open64(const char *path, int flags, ...) {
    REAL(open64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return opened(real(path, flags, mode), flags);
}

int openat(int dir, const char *path, int flags, ...) {
    REAL(openat);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return opened(real(dir, path, flags, mode), flags);
}

int openat64(int dir, const char *path, int flags, ...) {
    REAL(openat64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return opened(real(dir, path, flags, mode), flags);
}

#if SYSTEM == FREEBSD
// fdescfs(5): without it, devfs has only /dev/fd/0, 1 and 2.
int statx(int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict to) {
    REAL(statx);
    // A caller that only checks whether the call exists passes no path.
    const char *volatile given = path;
    if (given != NULL && strncmp(path, "/dev/fd/", 8) == 0 && strtol(path + 8, NULL, 10) > 2) return fail(ENOENT);
    return real(dir, path, flags, mask, to);
}
#endif
