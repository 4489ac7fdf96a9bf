// The floor: a relay that keeps nothing, checks nothing and knows no document. What it costs is what the operating
// system asks for moving these bytes: one read per message that comes, one write per client per turn.
//
// usage: relay PORT. It shakes hands with this folder's load.c only (whose key is fixed) and takes the request's path,
// up to the question mark, for the room.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct { uint8_t *data; size_t size, cap; } Buf;
typedef struct Room Room;
typedef struct { int fd, open, dirty, waiting; Room *room; Buf in, out; } Conn;
struct Room { char path[512]; Conn **members; int count, cap; Room *next; };
static Room *rooms; static int epfd; static Conn **dirty; static int dirtyCount, dirtyCap;
static const char ANSWER[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static void put(Buf *b, const void *data, size_t n) {
  if (b->size + n > b->cap) { while (b->size + n > b->cap) b->cap = b->cap ? b->cap * 2 : 256; b->data = realloc(b->data, b->cap); }
  memcpy(b->data + b->size, data, n); b->size += n;
}
static void later(Conn *c, const void *data, size_t n) {
  put(&c->out, data, n);
  if (c->dirty) return;
  if (dirtyCount == dirtyCap) dirty = realloc(dirty, (dirtyCap = dirtyCap ? dirtyCap * 2 : 256) * sizeof *dirty);
  dirty[dirtyCount++] = c; c->dirty = 1;
}
static void flush(Conn *c) {
  size_t at = 0; c->dirty = 0;
  while (at < c->out.size) { ssize_t n = send(c->fd, c->out.data + at, c->out.size - at, MSG_NOSIGNAL | MSG_DONTWAIT); if (n <= 0) break; at += n; }
  memmove(c->out.data, c->out.data + at, c->out.size - at); c->out.size -= at;
  int wait = c->out.size > 0;
  if (wait != c->waiting) { c->waiting = wait; struct epoll_event e = {.events = EPOLLIN | (wait ? EPOLLOUT : 0), .data.ptr = c}; epoll_ctl(epfd, EPOLL_CTL_MOD, c->fd, &e); }
}
static void join(Conn *c, const char *path, size_t n) {
  Room *r = rooms; while (r && (strncmp(r->path, path, n) || r->path[n])) r = r->next;
  if (!r) { r = calloc(1, sizeof *r); memcpy(r->path, path, n); r->next = rooms; rooms = r; }
  if (r->count == r->cap) r->members = realloc(r->members, (r->cap = r->cap ? r->cap * 2 : 8) * sizeof *r->members);
  r->members[r->count++] = c; c->room = r;
}
static void leave(Conn *c) {
  Room *r = c->room;
  if (r) for (int i = 0; i < r->count; i++) if (r->members[i] == c) { r->members[i] = r->members[--r->count]; break; }
  c->out.size = 0; c->room = NULL; close(c->fd); c->fd = -1;
}
static void message(Conn *c, uint8_t *body, size_t n) {
  if (n >= 2 && body[0] == 0 && body[1] == 0) { later(c, "\x82\x05\0\1\2\0\0", 7); return; }
  if (n < 2 || body[0] != 0) return;
  uint8_t head[4] = {0x82}; size_t h = 2;
  if (n < 126) head[1] = n; else { head[1] = 126; head[2] = n >> 8; head[3] = n; h = 4; }
  for (int i = 0; i < c->room->count; i++) {
    Conn *other = c->room->members[i];
    if (other != c) { later(other, head, h); later(other, body, n); }
  }
}
static int receive(Conn *c) {
  static uint8_t chunk[1 << 16];
  ssize_t got = recv(c->fd, chunk, sizeof chunk, MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno != EAGAIN)) return -1;
  if (got < 0) return 0;
  put(&c->in, chunk, got);
  size_t at = 0;
  if (!c->open) {
    uint8_t *end = memmem(c->in.data, c->in.size, "\r\n\r\n", 4); if (!end) return 0;
    char *path = (char *)c->in.data + 4, *stop = path; while (*stop != ' ' && *stop != '?') stop++;
    join(c, path, stop - path); c->open = 1; later(c, ANSWER, sizeof ANSWER - 1); at = end + 4 - c->in.data;
  }
  while (c->in.size - at >= 6) {
    uint8_t *f = c->in.data + at; uint64_t size = f[1] & 127; size_t head = 2;
    if (size == 126) { if (c->in.size - at < 8) break; size = f[2] << 8 | f[3]; head = 4; } else if (size == 127) return -1;
    if (c->in.size - at < head + 4 + size) break;
    uint8_t *mask = f + head, *body = mask + 4;
    for (uint64_t i = 0; i < size; i++) body[i] ^= mask[i & 3];
    if ((f[0] & 15) == 8) return -1;
    if ((f[0] & 15) == 2) message(c, body, size);
    at += head + 4 + size;
  }
  memmove(c->in.data, c->in.data + at, c->in.size - at); c->in.size -= at;
  return 0;
}
int main(int argc, char **argv) {
  if (argc != 2) return 64;
  struct rlimit limit; getrlimit(RLIMIT_NOFILE, &limit); limit.rlim_cur = limit.rlim_max; setrlimit(RLIMIT_NOFILE, &limit);
  int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1; setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (void *)&to, sizeof to) || listen(listener, 4096)) { perror("relay"); return 1; }
  epfd = epoll_create1(0); struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}; epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &e);
  puts("ready"); fflush(stdout);
  for (;;) {
    static struct epoll_event events[512]; int n = epoll_wait(epfd, events, 512, -1);
    for (int i = 0; i < n; i++) {
      Conn *c = events[i].data.ptr;
      if (c) { if (c->fd >= 0 && ((events[i].events & EPOLLOUT) ? (flush(c), 0) : 0, receive(c)) < 0) leave(c); continue; }
      int fd = accept(listener, NULL, NULL); if (fd < 0) continue;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      c = calloc(1, sizeof *c); c->fd = fd; struct epoll_event in = {.events = EPOLLIN, .data.ptr = c}; epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &in);
    }
    for (int i = 0; i < dirtyCount; i++) if (dirty[i]->fd >= 0) flush(dirty[i]);
    dirtyCount = 0;
  }
}
