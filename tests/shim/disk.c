/* A disk that is slow or fails when told to: preloaded into a node.
 *
 * Before each sync of a file below TIDEGATE_DISK, the file named by
 * TIDEGATE_DISK_FAULT is read. "slow MILLISECONDS" makes the sync wait; "fail
 * WORD" makes one sync of a file with WORD in its path fail with EIO, and is
 * taken away by it. "hold WORD" makes each sync of a file with WORD in its path,
 * below that folder or not, wait until the order is gone. Each fault done adds a
 * byte to that file's name with ".done".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The path of an open file; an empty one if it has none. */
static void path_of(int fd, char path[4096])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    path[length < 0 ? 0 : length] = 0;
}

static void count(const char *order)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.done", order);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    (void)!write(fd, "x", 1);
    close(fd);
}

/* 1 if the sync must fail. */
static int disturb(int fd)
{
    const char *order = getenv("TIDEGATE_DISK_FAULT"), *folder = getenv("TIDEGATE_DISK");
    if (!order || !folder)
        return 0;
    int file = open(order, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    char text[64] = "", word[64] = "", path[4096] = "";
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    path_of(fd, path);
    if (length > 0 && sscanf(text, "hold %63s", word) == 1 && strstr(path, word)) {
        struct timespec wait = {0, 10 * 1000000};
        count(order);
        while (access(order, F_OK) == 0)
            nanosleep(&wait, NULL);
        return 0;
    }
    if (length <= 0 || strncmp(path, folder, strlen(folder)) != 0)
        return 0;
    long ms = 0;
    if (sscanf(text, "slow %ld", &ms) == 1) {
        struct timespec wait = {ms / 1000, (ms % 1000) * 1000000};
        count(order);
        nanosleep(&wait, NULL);
        return 0;
    }
    /* Only one of those who see it takes it away. */
    if (sscanf(text, "fail %63s", word) == 1 && strstr(path, word) && unlink(order) == 0) {
        count(order);
        return 1;
    }
    return 0;
}

int fsync(int fd)
{
    if (disturb(fd)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    if (disturb(fd)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}
