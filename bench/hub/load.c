// Writers and readers of one or many documents over WebSockets: one thread, epoll, unmasked bytes counted by decoding.
//
// The key of the handshake is fixed and masks are zeros: this is for measuring servers, not for anything else.
//
// usage: load HOST PORT DIALECT(y|h) PATHS_FILE WRITERS READERS INFLIGHT RATE SECONDS
// PATHS_FILE: one line per room: the request path, then (for h) the document's name and the token. Each room gets WRITERS writers
// (which read too) and READERS readers. INFLIGHT > 0: a writer has so many edits that the room's last reader has not
// seen yet; RATE > 0: all writers of a room together type so many edits a second.
// Prints one JSON line: connections, edits sent, edits delivered to others, seconds, latency percentiles (ms, all
// readers), acknowledgement percentiles (ms), bytes received.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TIMES = 1 << 18, SAMPLES = 1 << 21 };
typedef struct { uint8_t *data; size_t size, cap; } Buf;
typedef struct Room Room;
typedef struct { int fd, writer, ready, number; Room *room; Buf in, out; size_t read; uint32_t next; uint64_t seen; double *sent; uint32_t acked; double due; } Conn;
struct Room { Conn **members; int count; Conn **writers; int writing; uint32_t shown[64]; char path[1024], name[200], token[800]; };

static char dialect; static int inflight; static double rate;
static uint64_t sent, delivered, received; static float *lat, *ack; static size_t nlat, nack; static int measuring, started, epfd, readyCount;

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9; }
static void put(Buf *b, const void *data, size_t n) {
  if (b->size + n > b->cap) { while (b->size + n > b->cap) b->cap = b->cap ? b->cap * 2 : 256; b->data = realloc(b->data, b->cap); }
  memcpy(b->data + b->size, data, n); b->size += n;
}
static size_t uvar(uint8_t *to, uint64_t v) { size_t n = 0; while (v > 127) { to[n++] = 128 | (v & 127); v >>= 7; } to[n++] = v; return n; }
static int readVar(const uint8_t **p, const uint8_t *end, uint64_t *v) {
  *v = 0; for (int s = 0; *p < end; s += 7) { uint8_t b = *(*p)++; *v |= (uint64_t)(b & 127) << s; if (b < 128) return 1; } return 0;
}
static void flush(Conn *c) {
  size_t at = 0;
  while (at < c->out.size) { ssize_t n = send(c->fd, c->out.data + at, c->out.size - at, MSG_NOSIGNAL | MSG_DONTWAIT); if (n <= 0) break; at += n; }
  memmove(c->out.data, c->out.data + at, c->out.size - at); c->out.size -= at;
}
static void frame(Conn *c, const uint8_t *data, size_t n) {
  uint8_t head[14] = {0x82}; size_t h = 2;
  if (n < 126) head[1] = 128 | n; else { head[1] = 128 | 126; head[2] = n >> 8; head[3] = n; h = 4; }
  memset(head + h, 0, 4); put(&c->out, head, h + 4); put(&c->out, data, n);  // a mask of zeros
}
static void message(Conn *c, const uint8_t *body, size_t n) {
  uint8_t all[2048]; size_t at = 0;
  if (dialect == 'h') { size_t len = strlen(c->room->name); at += uvar(all, len); memcpy(all + at, c->room->name, len); at += len; }
  memcpy(all + at, body, n); frame(c, all, at + n);
}
static void edit(Conn *c) {
  uint8_t u[64], m[80]; size_t n = 0; uint64_t id = 1000 + c->number;
  u[n++] = 1; u[n++] = 1; n += uvar(u + n, id); n += uvar(u + n, c->next);
  if (c->next == 0) { memcpy(u + n, "\x04\x01\x07" "content", 10); n += 10; } else { u[n++] = 0x84; n += uvar(u + n, id); n += uvar(u + n, c->next - 1); }
  u[n++] = 1; u[n++] = 'x'; u[n++] = 0;
  m[0] = 0; m[1] = 2; size_t k = 2 + uvar(m + 2, n); memcpy(m + k, u, n);
  c->sent[c->next % TIMES] = now(); c->next++; sent += measuring; message(c, m, k + n);
}
static void more(Room *r) {
  if (started && inflight > 0) for (int w = 0; w < r->writing; w++) { Conn *c = r->writers[w]; while (c->next - r->shown[w] < (uint32_t)inflight) edit(c); flush(c); }
}
static void structs(Conn *c, const uint8_t *p, const uint8_t *end) {
  uint64_t clients; if (!readVar(&p, end, &clients)) return;
  double t = now();
  for (uint64_t i = 0; i < clients; i++) {
    uint64_t count, id, clock; if (!readVar(&p, end, &count) || !readVar(&p, end, &id) || !readVar(&p, end, &clock)) return;
    for (uint64_t s = 0; s < count; s++) {
      if (p >= end) return;
      uint8_t info = *p++; uint64_t a, len = 0;
      if (info & 0x80) { readVar(&p, end, &a); readVar(&p, end, &a); }
      if (info & 0x40) { readVar(&p, end, &a); readVar(&p, end, &a); }
      if (!(info & 0xC0) && (info & 31) == 4) { readVar(&p, end, &a); if (a == 1) { readVar(&p, end, &a); p += a; } else { readVar(&p, end, &a); readVar(&p, end, &a); } }
      readVar(&p, end, &len); if ((info & 31) == 4) p += len;
      if (id >= 1000 && id < 1000 + (uint64_t)c->room->writing) {
        int w = id - 1000; Conn *by = c->room->writers[w];
        if (by == c) { for (uint64_t k = clock; k < clock + len; k++) if (measuring && nack < SAMPLES) ack[nack++] = (t - by->sent[k % TIMES]) * 1e3; }
        else if (measuring) {
          delivered += len; for (uint64_t k = clock; k < clock + len && nlat < SAMPLES; k++) lat[nlat++] = (t - by->sent[k % TIMES]) * 1e3;
        }
        if (c == c->room->members[c->room->count - 1] && clock + len > c->room->shown[w]) c->room->shown[w] = clock + len;
      }
      clock += len;
    }
  }
}
static void handle(Conn *c, const uint8_t *p, size_t n) {
  const uint8_t *end = p + n; uint64_t type, step, len;
  if (dialect == 'h') { if (!readVar(&p, end, &len)) return; p += len; }
  if (!readVar(&p, end, &type)) return;
  if (dialect == 'h' && type == 8 && c->writer) { if (measuring && nack < SAMPLES) ack[nack++] = (now() - c->sent[c->acked % TIMES]) * 1e3; c->acked++; return; }
  if (type != 0 && type != 4) return;
  readVar(&p, end, &step); if (!readVar(&p, end, &len) || len > (uint64_t)(end - p)) return;
  if (step == 0) return;
  if (step == 1 && !c->ready) { c->ready = 1; readyCount++; }
  structs(c, p, p + len);
}
static int receive(Conn *c) {
  static uint8_t chunk[1 << 18];
  for (;;) {
    ssize_t n = recv(c->fd, chunk, sizeof chunk, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) return -1;
    if (n < 0) return 0;
    received += n; put(&c->in, chunk, n);
    size_t at = 0;
    while (c->in.size - at >= 2) {
      uint8_t *f = c->in.data + at; uint64_t size = f[1] & 127; size_t head = 2;
      if (size == 126) { if (c->in.size - at < 4) break; size = f[2] << 8 | f[3]; head = 4; }
      else if (size == 127) { if (c->in.size - at < 10) break; size = 0; for (int i = 2; i < 10; i++) size = size << 8 | f[i]; head = 10; }
      if (c->in.size - at < head + size) break;
      if ((f[0] & 15) == 2) handle(c, f + head, size);
      else if ((f[0] & 15) == 8) { fprintf(stderr, "closed: %d %.*s\n", f[head] << 8 | f[head + 1], (int)size - 2, f + head + 2); return -1; }
      else if ((f[0] & 15) == 9) { uint8_t pong[6] = {0x8A, 0x80}; put(&c->out, pong, 6); flush(c); }
      at += head + size;
    }
    memmove(c->in.data, c->in.data + at, c->in.size - at); c->in.size -= at;
    if (n < (ssize_t)sizeof chunk) return 0;
  }
}
static Conn *connectTo(const char *host, int port, Room *room) {
  Conn *c = calloc(1, sizeof *c); c->room = room; c->fd = socket(AF_INET, SOCK_STREAM, 0); int one = 1;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}; inet_pton(AF_INET, host, &to.sin_addr);
  if (connect(c->fd, (void *)&to, sizeof to)) { perror("connect"); exit(1); }
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  char request[2048]; int n = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", room->path, host, port);
  if (send(c->fd, request, n, MSG_NOSIGNAL) != n) { perror("send"); exit(1); }
  char answer[4096]; int have = 0;
  while (!memmem(answer, have, "\r\n\r\n", 4)) { int k = recv(c->fd, answer + have, sizeof answer - 1 - have, 0); if (k <= 0) { fprintf(stderr, "refused: %.*s\n", have, answer); exit(1); } have += k; }
  if (memcmp(answer + 9, "101", 3)) { fprintf(stderr, "refused: %.*s\n", have, answer); exit(1); }
  char *rest = (char *)memmem(answer, have, "\r\n\r\n", 4) + 4; put(&c->in, rest, answer + have - rest);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c}; epoll_ctl(epfd, EPOLL_CTL_ADD, c->fd, &e);
  if (dialect == 'h') { uint8_t m[1000] = {2, 0}; size_t len = strlen(room->token), k = 2 + uvar(m + 2, len); memcpy(m + k, room->token, len); message(c, m, k + len); }
  message(c, (uint8_t *)"\0\0\1\0", 4); flush(c);
  return c;
}
static void turn(double wait) {
  static struct epoll_event events[512]; int n = epoll_wait(epfd, events, 512, wait <= 0 ? 0 : (int)(wait * 1e3) + 1);
  for (int i = 0; i < n; i++) { Conn *c = events[i].data.ptr; if (receive(c) < 0) { fprintf(stderr, "a connection ended\n"); exit(2); } flush(c); more(c->room); }
}
static int order(const void *a, const void *b) { float x = *(float *)a, y = *(float *)b; return (x > y) - (x < y); }
static float at(float *v, size_t n, double q) { return n ? v[(size_t)(q * (n - 1))] : -1; }

int main(int argc, char **argv) {
  if (argc != 10) return 64;
  const char *host = argv[1]; int port = atoi(argv[2]); dialect = argv[3][0]; int writers = atoi(argv[5]), readers = atoi(argv[6]);
  inflight = atoi(argv[7]); rate = atof(argv[8]); double seconds = atof(argv[9]);
  struct rlimit limit; getrlimit(RLIMIT_NOFILE, &limit); limit.rlim_cur = limit.rlim_max; setrlimit(RLIMIT_NOFILE, &limit);
  lat = malloc(SAMPLES * sizeof *lat); ack = malloc(SAMPLES * sizeof *ack); epfd = epoll_create1(0);
  FILE *file = fopen(argv[4], "r"); if (!file) { perror(argv[4]); return 1; }
  static Room rooms[4096]; int count = 0, total = 0; char line[2048]; double began = now();
  while (fgets(line, sizeof line, file)) {
    Room *r = &rooms[count++]; sscanf(line, "%1023s %199s %799s", r->path, r->name, r->token);
    r->members = calloc(writers + readers, sizeof *r->members); r->writers = calloc(writers, sizeof *r->writers); r->writing = writers;
    for (int i = 0; i < writers + readers; i++) {
      Conn *c = r->members[r->count++] = connectTo(host, port, r); total++;
      if (i < writers) { c->writer = 1; c->number = i; c->sent = calloc(TIMES, sizeof *c->sent); r->writers[i] = c; }
      while (readyCount < total - 20) turn(0.01);
    }
  }
  while (readyCount < total && now() - began < 60) turn(0.01);
  if (readyCount < total) { fprintf(stderr, "%d of %d were synced\n", readyCount, total); return 3; }
  double joined = now() - began;
  fprintf(stderr, "ready\n"); if (getchar() == EOF) return 0;
  started = 1; double start = now(), warm = start + (seconds > 2 ? 1 : 0.2), end = warm + seconds;
  for (int i = 0; i < count; i++) for (int w = 0; w < writers; w++) rooms[i].writers[w]->due = start + (writers / (rate > 0 ? rate : 1)) * ((w * count + i) % (writers * count)) / (double)(writers * count);
  for (int i = 0; i < count; i++) more(&rooms[i]);
  uint64_t bytes = 0;
  for (;;) {
    double t = now();
    if (!measuring && t >= warm) { measuring = 1; start = t; delivered = sent = nlat = nack = 0; bytes = received; fprintf(stderr, "measure\n"); }
    if (t >= end) break;
    double next = t + 0.05;
    if (rate > 0) for (int i = 0; i < count; i++) for (int w = 0; w < writers; w++) {
      Conn *c = rooms[i].writers[w]; if (c->due <= t) { edit(c); flush(c); c->due += writers / rate; } if (c->due < next) next = c->due;
    }
    turn(next - now() > 0.001 ? next - now() - 0.001 : 0);
  }
  double took = now() - start; measuring = 0; fprintf(stderr, "done\n");
  qsort(lat, nlat, sizeof *lat, order); qsort(ack, nack, sizeof *ack, order);
  printf("{\"connections\": %d, \"joined_s\": %.4f, \"sent\": %lu, \"delivered\": %lu, \"seconds\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"ack_p50_ms\": %.4f, \"ack_p99_ms\": %.4f, \"bytes\": %lu}\n", total, joined, sent, delivered, took, at(lat, nlat, .5), at(lat, nlat, .99), at(ack, nack, .5), at(ack, nack, .99), received - bytes);
  fflush(stdout); if (getchar() == EOF) return 0;
  return 0;
}
