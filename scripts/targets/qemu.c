/* Asks the kernel for what qemu, when it runs a program of another processor, is known to answer by itself.
   scripts/targets.sh runs this program with qemu and without it. A line is a fact and the answer; where the lines
   differ, qemu is at fault. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

static void answer(const char *fact, int result) {
    if (result < 0)
        printf("%s %s\n", fact, strerror(errno));
    else
        printf("%s %d\n", fact, result);
}

/* How many groups a peer has that has three, or as many as this user. */
static void peer_groups(void) {
    gid_t groups[64] = {7, 8, 9};
    socklen_t size = sizeof groups;
    int pair[2];
    /* Only root can choose. */
    if (geteuid() == 0)
        setgroups(3, groups);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return;
    int result = getsockopt(pair[0], SOL_SOCKET, SO_PEERGROUPS, groups, &size);
    answer("peer_groups", result < 0 ? result : (int)(size / sizeof *groups));
}

/* Whether the kernel lets itself be asked about sockets: AF_NETLINK's protocol 4. */
static void sock_diag(void) {
    int kernel = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 4);
    answer("sock_diag", kernel < 0 ? kernel : 0);
}

/* Whether a process that may write no file can read its map, as the C library does before `main`. */
static void maps(void) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        char map[64];
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_FSIZE, &none);
        _exit(read(open("/proc/self/maps", O_RDONLY | O_CLOEXEC), map, sizeof map) <= 0);
    }
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        printf("maps killed by signal %d\n", WTERMSIG(status));
    else
        printf("maps %d\n", WEXITSTATUS(status));
}

int main(void) {
    /* The child has nothing of the output to write. */
    setvbuf(stdout, NULL, _IONBF, 0);
    peer_groups();
    sock_diag();
    maps();
    return 0;
}
