/* The null card: NVIDIA's runtime API (libcudart) on host memory, so that the CUDA build of PyTorch finds a GPU.
 *
 * Kernels do nothing but are counted by name. Allocations, capacity, copies, memsets, streams, events, pinned memory and
 * latched errors behave as documented in cuda_runtime_api.h. Device addresses are reserved without access: reading one
 * from the host is SIGSEGV, as on a card; the bytes lie in a second mapping (the shadow) at a fixed distance.
 *
 * Settings, as environment variables:
 *   NULLCARD_NAME         "Null RTX 3060"; of several cards, by their PCI bus: "Null RTX 2070;Null RTX 3060"
 *   NULLCARD_CAPABILITY   "8.6", or "7.5;8.6"
 *   NULLCARD_MIB          12288: its memory; or "8192;12288"
 *   NULLCARD_CONTEXT_MIB  300: memory of each process's context (invented; a real one depends on the driver)
 *   NULLCARD_NUMBERS      1: a kernel that is launched outside the numbers layer (site/numbers_layer.py) fails
 *   NULLCARD_REFUSE_PINS  pinning fails from so many bytes on (1: always)
 *   NULLCARD_REFUSE_NTH   the n-th allocation of device memory fails; nullcard_refuse() sets it while running
 *   NULLCARD_REFUSE_TIMES 2: how many attempts in a row fail then: torch frees its cache and tries once more
 *   NULLCARD_DEFER        copies: those between pinned memory and the card happen only when something waits for them;
 *                         kernels: what the numbers layer computes does, copies happen at once (site/late_kernels.py)
 *   NULLCARD_RACES        1: an access to memory that nothing orders after an earlier one fails (races.h)
 *   NULLCARD_DRIVER       13020: the CUDA version that the driver supports
 *   NULLCARD_GONE         a file: once it exists, every call fails as on a card that fell off the bus; with a number
 *                         in it, that card alone
 *   NULLCARD_STATE        a file through which processes share the card's memory
 *   NULLCARD_REPORT       a file to which each process appends its counts at its end
 *   NULLCARD_LOG          1: the name of each function at its first call, to stderr
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "cuda_runtime_api.h"
#include "card.h"

#define API __attribute__((visibility("default")))
#define SPACE (1ull << 44) /* device addresses, never used twice */
#define MIB (1ull << 20)
typedef uint64_t u64;
typedef uint32_t u32;

static char *device_at, *shadow_at;
static _Atomic u64 next_free;
static u64 context_bytes;
#define CARDS 4
static struct card {
    char name[64], uuid[40];
    u64 capacity;
    int major, minor;
} cards[CARDS]; /* in the order of their PCI bus, as NVML numbers them */
static int cards_there = 1;
static int shown[CARDS], cards_shown; /* the card of each of CUDA's numbers */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int logs, defers, late;
static u64 refuse_pins_from;
static _Atomic int64_t refuse_in; /* allocations until one is refused; 0: none is */
static int64_t refuse_times, refused; /* attempts that fail then, and those that did */
static const char *gone_file;
static int needs_numbers, races;
struct granule;
static int watch_races(void);
static __thread int computing;
static __thread cudaError_t last_error;
static _Atomic int broken; /* a sticky error: every later call of the process returns it */
static __thread int current_device; /* CUDA's number */

/* ---- counts ---- */
#define NAMES 4096
static struct {
    const char *name;
    _Atomic u64 count;
} counted[NAMES];
static _Atomic int counted_names = 1;

static void name_of_count(const char *name, int *at) { /* caller holds the lock */
    if (*at) return;
    int n = counted_names++;
    if (n >= NAMES) n = NAMES - 1;
    counted[n].name = name;
    *at = n;
    if (logs) fprintf(stderr, "nullcard: %s\n", name);
}
API void nullcard_note(const char *name, int *at) {
    if (!*at) {
        pthread_mutex_lock(&lock);
        name_of_count(name, at);
        pthread_mutex_unlock(&lock);
    }
    counted[*at].count++;
}
#define NOTE()                                                                                                         \
    do {                                                                                                               \
        static int at_;                                                                                                \
        nullcard_note(__func__, &at_);                                                                                 \
    } while (0)
#define NOTED_LOCKED(text)                                                                                             \
    do {                                                                                                               \
        static int at_;                                                                                                \
        name_of_count(text, &at_);                                                                                     \
        counted[at_].count++;                                                                                          \
    } while (0)
#define NOTED(text)                                                                                                    \
    do {                                                                                                               \
        static int at_;                                                                                                \
        nullcard_note(text, &at_);                                                                                     \
    } while (0)

#define KERNELS (1u << 18)
static struct kernel {
    const void *function;
    const char *name;
    _Atomic u64 count;
} kernels[KERNELS];
static _Atomic u64 launches;
static u64 peak; /* most bytes of the card that this process has held */

static struct kernel *kernel_of(const void *function, const char *name) {
    u64 h = ((uintptr_t)function >> 4) * 0x9E3779B97F4A7C15ull >> 46;
    while (kernels[h].function && kernels[h].function != function) h = (h + 1) & (KERNELS - 1);
    if (!kernels[h].function) {
        kernels[h].function = function;
        kernels[h].name = name ? name : "?";
    }
    return &kernels[h];
}
static cudaError_t fail(cudaError_t e) {
    if (e) last_error = e;
    return e;
}
/* A card that fell off the bus (Xid 79). */
API int nullcard_is_gone(int card) {
    if (!gone_file || access(gone_file, F_OK)) return 0;
    int only = -1;
    FILE *f = fopen(gone_file, "r");
    if (f) {
        if (fscanf(f, "%d", &only) != 1) only = -1;
        fclose(f);
    }
    return only < 0 || only == card;
}
static int card_of(int device) { return device >= 0 && device < cards_shown ? shown[device] : 0; }
static cudaError_t broken_by(const char *what) {
    if (!broken) fprintf(stderr, "nullcard: %s\n", what);
    broken = cudaErrorLaunchFailure;
    return fail(cudaErrorLaunchFailure);
}
/* The sticky error of this process, 0 while there is none. */
static cudaError_t failed(void) {
    if (!broken && nullcard_is_gone(card_of(current_device))) broken = cudaErrorLaunchFailure;
    return fail(broken);
}
static cudaError_t launch(const void *function) {
    struct kernel *kernel = kernel_of(function, NULL);
    if (failed()) return broken;
    if (needs_numbers && !computing) {
        fprintf(stderr, "nullcard: %s was launched outside the numbers layer: its results are not computed\n",
                kernel->name);
        return fail(cudaErrorNotSupported);
    }
    kernel->count++;
    launches++;
    return cudaSuccess;
}
/* A sticky error of the numbers layer. */
API void nullcard_break(const char *what) { broken_by(what); }
/* Set while the numbers layer runs an operator in this thread. */
API void nullcard_computes(int whether) { computing = whether; }
/* The n-th allocation of device memory from now on fails. */
API void nullcard_refuse(int64_t n) {
    refuse_in = n;
    refused = 0;
}

/* The sum over functions whose name begins so ("cublasGemmEx"); "launches": all kernels. */
API u64 nullcard_count(const char *name) {
    if (!strcmp(name, "launches")) return launches;
    u64 sum = 0;
    size_t n = strlen(name);
    for (int i = 1; i < counted_names; i++)
        if (counted[i].name && !strncmp(counted[i].name, name, n)) sum += counted[i].count;
    return sum;
}
API void nullcard_reset(void) {
    for (int i = 1; i < counted_names; i++) counted[i].count = 0;
    for (u64 i = 0; i < KERNELS; i++) kernels[i].count = 0;
    launches = peak = 0;
}
API void nullcard_write(const char *path) {
    FILE *f = fopen(path, "a");
    if (!f) return;
    for (int i = 1; i < counted_names; i++)
        if (counted[i].count) fprintf(f, "call %lu %s\n", (unsigned long)counted[i].count, counted[i].name);
    for (u64 i = 0; i < KERNELS; i++)
        if (kernels[i].count) fprintf(f, "kernel %lu %s\n", (unsigned long)kernels[i].count, kernels[i].name);
    fprintf(f, "peak %lu\n", (unsigned long)peak);
    fclose(f);
}
API void *nullcard_handle(void) { return calloc(1, 256); }

/* ---- the card and its memory ---- */
static struct slot {
    _Atomic int pid;
    _Atomic u64 used[CARDS];
} own_slots[64], *slots = own_slots, *mine;
static u64 env(const char *name, u64 otherwise) {
    const char *v = getenv(name);
    return v && *v ? strtoull(v, NULL, 0) : otherwise;
}

static void claim(void) {
    for (int i = 0; i < 64; i++) {
        int pid = slots[i].pid;
        if (pid && pid != getpid() && kill(pid, 0) && errno == ESRCH) {
            memset(slots[i].used, 0, sizeof slots[i].used);
            atomic_compare_exchange_strong(&slots[i].pid, &pid, 0);
        }
    }
    for (int i = 0; i < 63; i++) {
        int none = 0;
        if (atomic_compare_exchange_strong(&slots[i].pid, &none, getpid())) {
            mine = &slots[i];
            memset(mine->used, 0, sizeof mine->used);
            return;
        }
    }
    mine = &slots[63];
}
API void nullcard_leave(void) {
    static int left;
    if (left++) return;
    if (mine) memset(mine->used, 0, sizeof mine->used), mine->pid = 0;
    const char *path = getenv("NULLCARD_REPORT");
    if (path && (launches || nullcard_count("cuda") > 20)) {
        FILE *f = fopen(path, "a");
        if (f) {
            fprintf(f, "process %d launches %lu\n", getpid(), (unsigned long)launches);
            fclose(f);
        }
        nullcard_write(path);
    }
}
/* The n-th of the words between semicolons in a setting, or the last; returns how many there are. */
static int word_of(const char *setting, const char *otherwise, int n, char *word, size_t size) {
    const char *at = getenv(setting);
    if (!at || !*at) at = otherwise;
    int words = 1;
    for (const char *c = at; *c; c++) words += *c == ';';
    for (; n > 0 && strchr(at, ';'); n--) at = strchr(at, ';') + 1;
    snprintf(word, size, "%.*s", (int)strcspn(at, ";"), at);
    return words;
}
static void read_cards(void) {
    char word[64];
    const char *settings[] = {"NULLCARD_NAME", "NULLCARD_CAPABILITY", "NULLCARD_MIB"};
    for (int i = 0; i < 3; i++) {
        int words = word_of(settings[i], "", 0, word, sizeof word);
        if (words > cards_there) cards_there = words < CARDS ? words : CARDS;
    }
    for (int i = 0; i < cards_there; i++) {
        word_of("NULLCARD_NAME", "Null RTX 3060", i, cards[i].name, sizeof cards[i].name);
        word_of("NULLCARD_CAPABILITY", "8.6", i, word, sizeof word);
        sscanf(word, "%d.%d", &cards[i].major, &cards[i].minor);
        word_of("NULLCARD_MIB", "12288", i, word, sizeof word);
        cards[i].capacity = strtoull(word, NULL, 0) * MIB;
        snprintf(cards[i].uuid, sizeof cards[i].uuid, "4e554c4c-0000-0000-0000-%012d", i + 1);
    }
}
static int speed(int card) { return cards[card].major * 10 + cards[card].minor; }
/* CUDA's numbers: CUDA_DEVICE_ORDER (from the fastest card to the slowest, unless it is PCI_BUS_ID), then
 * CUDA_VISIBLE_DEVICES, up to the first word that names no card; a card named twice hides all. */
static void show_cards(void) {
    int order[CARDS], n = cards_there;
    const char *by = getenv("CUDA_DEVICE_ORDER"), *seen = getenv("CUDA_VISIBLE_DEVICES");
    int by_speed = !by || strcmp(by, "PCI_BUS_ID");
    for (int i = 0; i < n; i++) {
        int at = i;
        for (; by_speed && at > 0 && speed(order[at - 1]) < speed(i); at--) order[at] = order[at - 1];
        order[at] = i;
    }
    if (!seen) {
        memcpy(shown, order, sizeof shown);
        cards_shown = n;
        return;
    }
    char words[1024], *rest = NULL;
    snprintf(words, sizeof words, "%s", seen);
    for (char *word = strtok_r(words, ", ", &rest); word; word = strtok_r(NULL, ", ", &rest)) {
        int card = -1;
        char *end;
        long number = strtol(word, &end, 10);
        if (!*end && number >= 0 && number < n) card = order[number];
        for (int i = 0; i < n && !strncmp(word, "GPU-", 4); i++)
            if (!strncmp(word + 4, cards[i].uuid, strlen(word + 4))) card = i;
        if (card < 0) return;
        for (int i = 0; i < cards_shown; i++)
            if (shown[i] == card) {
                cards_shown = 0;
                return;
            }
        shown[cards_shown++] = card;
    }
}
static pthread_once_t cards_once = PTHREAD_ONCE_INIT; /* as CUDA, at the first call and not when it is loaded */
API int nullcard_shown(void) {
    pthread_once(&cards_once, show_cards);
    return cards_shown;
}

__attribute__((constructor)) static void begin(void) {
    read_cards();
    context_bytes = env("NULLCARD_CONTEXT_MIB", 300) * MIB;
    logs = env("NULLCARD_LOG", 0);
    const char *what = getenv("NULLCARD_DEFER");
    defers = what && !strcmp(what, "copies");
    late = what && !strcmp(what, "kernels");
    if (what && *what && !defers && !late) {
        fprintf(stderr, "nullcard: NULLCARD_DEFER is copies or kernels, not %s\n", what);
        abort();
    }
    refuse_pins_from = env("NULLCARD_REFUSE_PINS", 0);
    refuse_in = env("NULLCARD_REFUSE_NTH", 0);
    refuse_times = env("NULLCARD_REFUSE_TIMES", 2);
    races = env("NULLCARD_RACES", 0);
    gone_file = getenv("NULLCARD_GONE");
    needs_numbers = env("NULLCARD_NUMBERS", 0);
    device_at = mmap((void *)0x300000000000, SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    shadow_at = mmap(NULL, SPACE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (device_at == MAP_FAILED || shadow_at == MAP_FAILED || !watch_races()) {
        perror("nullcard: address space");
        abort();
    }
    madvise(shadow_at, SPACE, MADV_DONTDUMP);
    madvise(device_at, SPACE, MADV_DONTDUMP);
    const char *state = getenv("NULLCARD_STATE");
    if (state) {
        int fd = open(state, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd >= 0 && !ftruncate(fd, sizeof own_slots)) {
            void *m = mmap(NULL, sizeof own_slots, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (m != MAP_FAILED) slots = m;
            close(fd);
        }
    }
    atexit(nullcard_leave);
}
static int on_device(const void *p) { return (char *)p >= device_at && (char *)p < device_at + SPACE; }
API int nullcard_driver(void) { return env("NULLCARD_DRIVER", CUDART_VERSION); }
API void *nullcard_host(const void *p) { return on_device(p) ? shadow_at + ((char *)p - device_at) : (void *)p; }
API int nullcard_cards(void) { return cards_there; }
API u64 nullcard_used(int card) {
    u64 all = 0;
    for (int i = 0; i < 64; i++)
        if (slots[i].pid) all += slots[i].used[card];
    return all;
}
API u64 nullcard_capacity(int card) { return cards[card].capacity; }
API int nullcard_holder(int card, int n, int *pid, u64 *used) {
    *pid = slots[n].pid;
    *used = slots[n].used[card];
    return *pid && *used && !kill(*pid, 0);
}
API void nullcard_identity(int card, const char **name, const char **uuid, int *a, int *b) {
    *name = cards[card].name;
    *uuid = cards[card].uuid;
    *a = cards[card].major;
    *b = cards[card].minor;
}
/* The card of CUDA's number; -1: of the current device. */
API int nullcard_card(int device) {
    nullcard_shown();
    return card_of(device < 0 ? current_device : device);
}
API int nullcard_device(void) { return current_device; }
API void nullcard_choose(int device) { current_device = device; }
/* Whether an allocation is one that a setting refuses. Caller holds the lock. */
static int is_refused(void) {
    NOTED_LOCKED("allocation");
    if (refuse_in <= 0 || --refuse_in) return 0;
    if (++refused < refuse_times) refuse_in = 1;
    NOTED_LOCKED("refused allocation");
    return 1;
}
/* bytes more (or, negative, fewer) on a card; 0 where they do not fit. The first call makes the context there. */
API int nullcard_take(int card, int64_t bytes) {
    pthread_mutex_lock(&lock);
    if (!mine) claim();
    if (!mine->used[card]) mine->used[card] = context_bytes;
    int fits = bytes <= 0 || nullcard_used(card) + bytes <= cards[card].capacity;
    if (bytes > 0 && is_refused()) fits = 0;
    if (fits) mine->used[card] += bytes;
    if (mine->used[card] > peak) peak = mine->used[card];
    pthread_mutex_unlock(&lock);
    return fits;
}
static int here(void) { return nullcard_card(-1); }
API void *nullcard_reserve(u64 bytes) { /* addresses only */
    bytes = (bytes + 2 * MIB - 1) & ~(2 * MIB - 1);
    u64 at = next_free;
    while (!atomic_compare_exchange_weak(&next_free, &at, at + bytes));
    return at + bytes > SPACE ? NULL : device_at + at;
}
API void nullcard_forget(void *p, u64 bytes) { madvise(nullcard_host(p), bytes, MADV_DONTNEED); }

struct block {
    char *at;
    u64 bytes;
    int kind, card;
    struct granule *marks;
    struct block *next;
}; /* kind: enum cudaMemoryType; negative: registered, not ours. marks: of host memory, for races.h */
static struct block *blocks;
static void keep(void *at, u64 bytes, int kind) {
    struct block *b = malloc(sizeof *b);
    *b = (struct block){at, bytes, kind, here()};
    pthread_mutex_lock(&lock);
    b->next = blocks;
    blocks = b;
    pthread_mutex_unlock(&lock);
}
static struct block *find(const void *p) { /* caller holds the lock */
    for (struct block *b = blocks; b; b = b->next)
        if ((char *)p >= b->at && (char *)p < b->at + b->bytes) return b;
    return NULL;
}
static int pinned(const void *p) {
    pthread_mutex_lock(&lock);
    struct block *b = find(p);
    int is = b && !on_device(p);
    pthread_mutex_unlock(&lock);
    return is;
}
static int drop(void *p, struct block *out, int registered) {
    pthread_mutex_lock(&lock);
    for (struct block **b = &blocks; *b; b = &(*b)->next)
        if ((*b)->at == p && ((*b)->kind < 0) == registered) {
            struct block *gone = *b;
            *out = *gone;
            *b = gone->next;
            free(gone);
            pthread_mutex_unlock(&lock);
            return 1;
        }
    pthread_mutex_unlock(&lock);
    return 0;
}
static u64 rounded(u64 n) {
    u64 to = n < MIB ? 512 : 2 * MIB;
    return (n + to - 1) / to * to;
}

/* ---- order: what must have happened before what ---- */
struct stream {
    int priority, capturing, actor;
    _Atomic int asked; /* queries answered "not ready" since work was last added */
    u64 queued;        /* pieces of work given to the numbers layer for later */
};
struct event {
    double at;
    u64 number, position;
    cudaStream_t stream;
    int is_recorded, has_no_time;
    _Atomic int asked;
    u32 clock[128];
};
static struct stream default_stream = {.actor = 1};
static int actors = 2, actor_is_free[128] = {0, 0}; /* free: created with cudaStreamNonBlocking */
static struct stream *of(cudaStream_t s) { return (uintptr_t)s > 2 ? (struct stream *)s : &default_stream; }
#include "races.h"

/* Copies that wait (NULLCARD_DEFER=copies). */
static struct copy {
    void *to;
    const void *from;
    u64 n, rows, to_pitch, from_pitch;
    cudaStream_t stream;
    u64 number;
    struct copy *next;
} *first_copy, **last_copy = &first_copy;
static _Atomic u64 copies_begun;
static void do_copy(struct copy *c) {
    for (u64 r = 0; r < c->rows; r++)
        memmove(nullcard_host((char *)c->to + r * c->to_pitch), nullcard_host((char *)c->from + r * c->from_pitch),
                c->n);
}
/* The waiting copies of a stream up to this number, or of all streams; whether there were any. does: them, too. */
static int waiting_copies(u64 number, int any, cudaStream_t stream, int does) {
    int there = 0;
    if (!defers) return 0;
    pthread_mutex_lock(&lock);
    struct copy **at = &first_copy;
    while (*at) {
        struct copy *c = *at;
        if (c->number <= number && (any || c->stream == stream)) {
            there = 1;
            if (!does) break;
            do_copy(c);
            *at = c->next;
            free(c);
        } else at = &c->next;
    }
    if (does) last_copy = at;
    pthread_mutex_unlock(&lock);
    return there;
}
/* Work of the numbers layer that waits (NULLCARD_DEFER=kernels, site/late_kernels.py). */
enum { RUN, RUN_ALL, WAIT, IS_WAITING };
static int (*late_work)(int what, cudaStream_t stream, cudaStream_t other, u64 position);
API void nullcard_late(int (*hook)(int, cudaStream_t, cudaStream_t, u64)) { late_work = hook; }
API int nullcard_is_late(void) { return late; }
API u64 nullcard_queue(cudaStream_t s) {
    of(s)->asked = 0;
    return ++of(s)->queued;
}
static int late_does(int what, cudaStream_t s, cudaStream_t other, u64 position) {
    return late && late_work ? late_work(what, s, other, position) : 0;
}
/* Whatever was queued before on every stream, or on one, is done now. */
static void settle(void) {
    waiting_copies(~0ull, 1, NULL, 1);
    late_does(RUN_ALL, NULL, NULL, ~0ull);
}
API void nullcard_settle(void) { settle(); }
static void settle_stream(cudaStream_t s) {
    waiting_copies(~0ull, 0, s, 1);
    late_does(RUN, s, NULL, ~0ull);
}
API void nullcard_flush_stream(void *stream) { settle_stream(stream); }
static cudaError_t finished(void) { return broken ? fail(broken) : cudaSuccess; } /* by work that was just done */

/* ---- memory ---- */
API cudaError_t cudaMalloc(void **p, size_t n) {
    NOTE();
    if (failed()) return broken;
    if (!nullcard_take(here(), rounded(n))) {
        *p = NULL;
        return fail(cudaErrorMemoryAllocation);
    }
    if (n == 0) {
        *p = NULL;
        return cudaSuccess;
    }
    *p = nullcard_reserve(n);
    keep(*p, rounded(n), cudaMemoryTypeDevice);
    return cudaSuccess;
}
API cudaError_t cudaFree(void *p) {
    struct block b;
    NOTE();
    if (failed()) return broken;
    settle(); /* it "may perform implicit synchronization": the check for races does not rely on that */
    nullcard_take(here(), 0);
    if (!p) return cudaSuccess;
    if (!drop(p, &b, 0)) return fail(cudaErrorInvalidValue);
    if (b.kind == cudaMemoryTypeManaged) munmap(b.at, b.bytes);
    else {
        nullcard_forget(b.at, b.bytes);
        nullcard_take(b.card, -(int64_t)b.bytes);
    }
    return finished();
}
API cudaError_t cudaMallocAsync(void **p, size_t n, cudaStream_t s) {
    NOTE();
    return cudaMalloc(p, n);
}
API cudaError_t cudaFreeAsync(void *p, cudaStream_t s) {
    NOTE();
    return cudaFree(p);
}
API cudaError_t cudaMallocManaged(void **p, size_t n, unsigned f) {
    NOTE();
    if (failed()) return broken;
    if (!n) return fail(cudaErrorInvalidValue);
    n = rounded(n);
    *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    keep(*p, n, cudaMemoryTypeManaged); /* it may lie in RAM: the card's capacity does not limit it */
    return cudaSuccess;
}
API cudaError_t cudaMemPrefetchAsync(const void *p, size_t n, struct cudaMemLocation l, unsigned f, cudaStream_t s) {
    NOTE();
    return failed();
}
API cudaError_t cudaHostAlloc(void **p, size_t n, unsigned f) {
    NOTE();
    if (failed()) return broken;
    nullcard_take(here(), 0);
    if (refuse_pins_from && n >= refuse_pins_from) {
        NOTED("cudaHostAlloc refused");
        return fail(cudaErrorMemoryAllocation);
    }
    u64 size = (n + 4095) & ~4095ull;
    if (!size) size = 4096;
    *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*p == MAP_FAILED) {
        *p = NULL;
        return fail(cudaErrorMemoryAllocation);
    }
    keep(*p, size, cudaMemoryTypeHost);
    return cudaSuccess;
}
API cudaError_t cudaMallocHost(void **p, size_t n) { return cudaHostAlloc(p, n, 0); }
static int in_copy(const char *p, u64 n) { /* whether a copy that has not happened yet is from or to it */
    int is = 0;
    pthread_mutex_lock(&lock);
    for (struct copy *c = first_copy; c && !is; c = c->next) {
        u64 size = c->n + (c->rows - 1) * (on_device(c->to) ? c->from_pitch : c->to_pitch);
        const char *host = on_device(c->to) ? c->from : c->to;
        is = host < p + n && host + size > p;
    }
    pthread_mutex_unlock(&lock);
    return is;
}
/* Pinned memory is freed after all copies of it: CUDA promises nothing where one is still under way. */
static cudaError_t drop_pinned(void *p, struct block *b, int registered, const char *function) {
    if (failed()) return broken;
    pthread_mutex_lock(&lock);
    struct block *found = find(p);
    int is_there = found && found->at == p && (found->kind < 0) == registered;
    if (is_there) *b = *found;
    pthread_mutex_unlock(&lock);
    if (!is_there) return fail(registered ? cudaErrorHostMemoryNotRegistered : cudaErrorInvalidValue);
    if (in_copy(b->at, b->bytes)) {
        snprintf(race_text, sizeof race_text, "race: %s of pinned memory that a copy still needs", function);
        return broken_by(race_text);
    }
    if (nullcard_touch(OF_HOST, b->at, b->bytes, 1, function)) return broken;
    drop(p, b, registered);
    free(b->marks);
    return cudaSuccess;
}
API cudaError_t cudaFreeHost(void *p) {
    struct block b;
    NOTE();
    if (!p) return cudaSuccess;
    cudaError_t e = drop_pinned(p, &b, 0, __func__);
    if (!e) munmap(b.at, b.bytes);
    return e;
}
API cudaError_t cudaHostRegister(void *p, size_t n, unsigned f) {
    NOTE();
    if (failed()) return broken;
    nullcard_take(here(), 0);
    if (!n || !p) return fail(cudaErrorInvalidValue);
    if (refuse_pins_from && n >= refuse_pins_from) {
        NOTED("cudaHostRegister refused");
        return fail(cudaErrorMemoryAllocation);
    }
    pthread_mutex_lock(&lock);
    struct block *b = find(p);
    pthread_mutex_unlock(&lock);
    if (b) return fail(cudaErrorHostMemoryAlreadyRegistered);
    keep(p, n, -cudaMemoryTypeHost);
    return cudaSuccess;
}
API cudaError_t cudaHostUnregister(void *p) {
    struct block b;
    NOTE();
    return drop_pinned(p, &b, 1, __func__);
}
API cudaError_t cudaMemGetInfo(size_t *free_, size_t *total) {
    NOTE();
    if (failed()) return broken;
    nullcard_take(here(), 0);
    u64 used = nullcard_used(here()), capacity = nullcard_capacity(here());
    *total = capacity;
    *free_ = used > capacity ? 0 : capacity - used;
    return cudaSuccess;
}
static int device_of(int card) { /* CUDA's number of a card */
    for (int i = 0; i < nullcard_shown(); i++)
        if (shown[i] == card) return i;
    return 0;
}
API cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
    NOTE();
    memset(a, 0, sizeof *a);
    a->device = -2;
    pthread_mutex_lock(&lock);
    struct block *b = find(p);
    int kind = b ? abs(b->kind) : on_device(p) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    int card = b ? b->card : here();
    pthread_mutex_unlock(&lock);
    a->type = kind;
    if (kind) a->device = device_of(card);
    if (kind == cudaMemoryTypeDevice || kind == cudaMemoryTypeManaged) a->devicePointer = (void *)p;
    if (kind != cudaMemoryTypeDevice) a->hostPointer = (void *)p;
    return cudaSuccess;
}

/* ---- copies ---- */
/* The accesses of a copy; a copy that the host waits for by itself is ordered before what the host does next. */
static int copy_races(struct copy *c, int out, int in, int is_pinned, int blocking) {
    if (!races) return 0;
    nullcard_work(c->stream);
    u64 to = c->n + (c->rows - 1) * c->to_pitch, from = c->n + (c->rows - 1) * c->from_pitch;
    int race = nullcard_touch(c->stream, c->from, from, 0, out ? "a copy to the host" : "a copy to the card") ||
               nullcard_touch(c->stream, c->to, to, 1, out ? "a copy to the host" : "a copy to the card");
    if (out ? blocking || !is_pinned : in && blocking && is_pinned) host_waited_for(clocks[of(c->stream)->actor]);
    return race;
}
static cudaError_t copy(void *to, const void *from, u64 n, u64 rows, u64 tp, u64 fp, int blocking,
                        cudaStream_t stream) {
    if (failed()) return broken;
    nullcard_take(here(), 0);
    int out = on_device(from) && !on_device(to), in = on_device(to) && !on_device(from);
    int is_pinned = out ? pinned(to) : in ? pinned(from) : 0;
    if (out) {
        if (blocking) NOTED("copy D2H blocking");
        else if (is_pinned) NOTED("copy D2H pinned async");
        else NOTED("copy D2H pageable (waits)");
    } else if (in) {
        if (blocking) NOTED("copy H2D blocking");
        else if (is_pinned) NOTED("copy H2D pinned async");
        else NOTED("copy H2D pageable");
    } else NOTED("copy D2D");
    struct copy c = {to, from, n, rows, tp, fp, stream, ++copies_begun};
    if (copy_races(&c, out, in, is_pinned, blocking)) return broken;
    if (late && computing == 2 && !in && !out) return cudaSuccess; /* a part of what the numbers layer does later */
    if (defers && is_pinned && !blocking) {
        struct copy *kept = malloc(sizeof c);
        *kept = c;
        pthread_mutex_lock(&lock);
        *last_copy = kept;
        last_copy = &kept->next;
        kept->next = NULL;
        pthread_mutex_unlock(&lock);
        of(stream)->asked = 0;
        return cudaSuccess;
    }
    if (blocking) settle();
    else settle_stream(stream);
    do_copy(&c);
    return finished();
}
/* For tests of the checks: no sticky error any more, and everything until now is over. */
API void nullcard_mend(void) {
    broken = last_error = 0;
    race_text[0] = 0;
    settle();
    host_waited_for(NULL);
}
API cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind k) {
    NOTE();
    return copy(to, from, n, 1, 0, 0, 1, NULL);
}
API cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind k, cudaStream_t s) {
    NOTE();
    return copy(to, from, n, 1, 0, 0, 0, s);
}
API cudaError_t cudaMemcpyPeerAsync(void *to, int d, const void *from, int e, size_t n, cudaStream_t s) {
    NOTE();
    return copy(to, from, n, 1, 0, 0, 0, s);
}
API cudaError_t cudaMemcpy2DAsync(void *to, size_t tp, const void *from, size_t fp, size_t w, size_t h,
                                  enum cudaMemcpyKind k, cudaStream_t s) {
    NOTE();
    return copy(to, from, w, h, tp, fp, 0, s);
}
API cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s) {
    NOTE();
    if (failed()) return broken;
    nullcard_work(s);
    if (nullcard_touch(s, p, n, 1, "a memset")) return broken;
    if (late && computing == 2) return cudaSuccess;
    settle_stream(s);
    memset(nullcard_host(p), v, n);
    return finished();
}
API cudaError_t cudaMemset(void *p, int v, size_t n) {
    NOTE();
    return cudaMemsetAsync(p, v, n, NULL);
}
API cudaError_t cudaGetSymbolAddress(void **p, const void *symbol) { /* one lasting home for each symbol */
    static struct {
        const void *symbol;
        void *at;
    } homes[4096];
    static int n;
    NOTE();
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < n && homes[i].symbol != symbol) i++;
    if (i == n && n < 4095) {
        homes[n].symbol = symbol;
        homes[n++].at = nullcard_reserve(MIB);
    }
    *p = homes[i].at;
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}
API cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t n, size_t off, enum cudaMemcpyKind k) {
    void *p;
    NOTE();
    cudaGetSymbolAddress(&p, symbol);
    return copy((char *)p + off, from, n, 1, 0, 0, 1, NULL);
}

/* ---- errors ---- */
API cudaError_t cudaGetLastError(void) {
    cudaError_t e = last_error;
    last_error = 0;
    return e;
}
API cudaError_t cudaPeekAtLastError(void) { return last_error; }
static const struct {
    cudaError_t e;
    const char *name, *text;
} errors[] = {{cudaSuccess, "cudaSuccess", "no error"},
              {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
              {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
              {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
              {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
              {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
               "part or all of the requested memory range is already mapped"},
              {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
               "pointer does not correspond to a registered memory region"},
              {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"}};
API const char *cudaGetErrorName(cudaError_t e) {
    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].e == e) return errors[i].name;
    return "cudaErrorUnknown";
}
API const char *cudaGetErrorString(cudaError_t e) {
    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].e == e) return errors[i].text;
    return "unknown error";
}

/* ---- device ---- */
API cudaError_t cudaGetDeviceCount(int *n) {
    NOTE();
    *n = nullcard_shown();
    if (nullcard_driver() < CUDART_VERSION / 1000 * 1000) return fail(cudaErrorInsufficientDriver);
    return *n ? cudaSuccess : fail(cudaErrorNoDevice);
}
API cudaError_t cudaGetDevice(int *d) {
    NOTE();
    *d = current_device;
    return cudaSuccess;
}
API cudaError_t cudaSetDevice(int d) {
    NOTE();
    if (d < 0 || d >= nullcard_shown()) return fail(cudaErrorInvalidDevice);
    current_device = d;
    nullcard_take(here(), 0);
    return cudaSuccess;
}
API cudaError_t cudaDriverGetVersion(int *v) {
    NOTE();
    *v = nullcard_driver();
    return cudaSuccess;
}
API cudaError_t cudaRuntimeGetVersion(int *v) {
    NOTE();
    *v = CUDART_VERSION;
    return cudaSuccess;
}
API cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
    NOTE();
    if (d < 0 || d >= nullcard_shown()) return fail(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    struct card *card = &cards[card_of(d)];
    snprintf(p->name, sizeof p->name, "%s", card->name);
    memcpy(p->uuid.bytes, "NULL", 4);
    p->uuid.bytes[15] = card_of(d) + 1;
    p->totalGlobalMem = card->capacity;
    p->sharedMemPerBlock = 49152;
    p->regsPerBlock = 65536;
    p->warpSize = 32;
    p->memPitch = 2147483647;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = card->major;
    p->minor = card->minor;
    p->textureAlignment = 512;
    p->texturePitchAlignment = 32;
    p->multiProcessorCount = 28;
    p->canMapHostMemory = 1;
    p->surfaceAlignment = 512;
    p->concurrentKernels = 1;
    p->pciBusID = card_of(d) + 1;
    p->asyncEngineCount = 2;
    p->unifiedAddressing = 1;
    p->memoryBusWidth = 192;
    p->l2CacheSize = 2359296;
    p->maxThreadsPerMultiProcessor = 1536;
    p->streamPrioritiesSupported = 1;
    p->globalL1CacheSupported = p->localL1CacheSupported = 1;
    p->sharedMemPerMultiprocessor = 102400;
    p->regsPerMultiprocessor = 65536;
    p->managedMemory = 1;
    p->concurrentManagedAccess = 1;
    p->computePreemptionSupported = 1;
    p->canUseHostPointerForRegisteredMem = 1;
    p->cooperativeLaunch = 1;
    p->sharedMemPerBlockOptin = 101376;
    p->maxBlocksPerMultiProcessor = 16;
    p->reservedSharedMemPerBlock = 1024;
    p->hostRegisterSupported = 1;
    p->memoryPoolsSupported = 1;
    return cudaSuccess;
}
API cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int d) {
    NOTE();
    if (d < 0 || d >= nullcard_shown()) return fail(cudaErrorInvalidDevice);
    switch (a) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: *v = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *v = 64; break;
    case cudaDevAttrMaxGridDimX: *v = 2147483647; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *v = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 49152; break;
    case cudaDevAttrWarpSize: *v = 32; break;
    case cudaDevAttrMultiProcessorCount: *v = 28; break;
    case cudaDevAttrComputeCapabilityMajor: *v = cards[card_of(d)].major; break;
    case cudaDevAttrComputeCapabilityMinor: *v = cards[card_of(d)].minor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 101376; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = 102400; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *v = 1536; break;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor: *v = 65536; break;
    case cudaDevAttrL2CacheSize: *v = 2359296; break;
    case cudaDevAttrClockRate: *v = 1777000; break;
    case cudaDevAttrMemoryClockRate: *v = 7501000; break;
    case cudaDevAttrGlobalMemoryBusWidth: *v = 192; break;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrHostRegisterSupported:
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
    case cudaDevAttrMemoryPoolsSupported: *v = 1; break;
    default: *v = 0;
    }
    return cudaSuccess;
}
API cudaError_t cudaDeviceGetPCIBusId(char *s, int n, int d) {
    NOTE();
    snprintf(s, n, "00000000:%02d:00.0", nullcard_card(d) + 1);
    return cudaSuccess;
}
API cudaError_t cudaDeviceGetStreamPriorityRange(int *low, int *high) {
    NOTE();
    if (low) *low = 0;
    if (high) *high = -5;
    return cudaSuccess;
}
API cudaError_t cudaDeviceCanAccessPeer(int *can, int a, int b) {
    NOTE();
    *can = 0;
    return cudaSuccess;
}
API cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *p, int d) {
    NOTE();
    *p = nullcard_handle();
    return cudaSuccess;
}
API cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t p, enum cudaMemPoolAttr a, void *v) {
    NOTE();
    *(u64 *)v = 0;
    return cudaSuccess;
}
API cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **f, unsigned version,
                                                 unsigned long long flags, enum cudaDriverEntryPointQueryResult *q) {
    NOTE();
    *f = dlsym(RTLD_DEFAULT, symbol);
    if (q) *q = *f ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    if (!*f) fprintf(stderr, "nullcard: no driver function %s\n", symbol);
    return cudaSuccess;
}

/* ---- streams and events ---- */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}
API cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int p) {
    NOTE();
    if (failed()) return broken;
    nullcard_take(here(), 0);
    struct stream *x = calloc(1, sizeof *x);
    x->priority = p;
    pthread_mutex_lock(&lock);
    x->actor = actors < ACTORS - 1 ? actors++ : ACTORS - 1;
    actor_is_free[x->actor] = f & cudaStreamNonBlocking;
    pthread_mutex_unlock(&lock);
    *s = (cudaStream_t)x;
    return cudaSuccess;
}
API cudaError_t cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithPriority(s, 0, 0); }
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) { return cudaStreamCreateWithPriority(s, f, 0); }
API cudaError_t cudaStreamDestroy(cudaStream_t s) {
    NOTE();
    settle_stream(s);
    free(of(s) == &default_stream ? NULL : s);
    return cudaSuccess;
}
API cudaError_t cudaStreamGetPriority(cudaStream_t s, int *p) {
    NOTE();
    *p = of(s)->priority;
    return cudaSuccess;
}
API cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    NOTE();
    if (failed()) return broken;
    settle_stream(s);
    host_waited_for(clocks[of(s)->actor]);
    return finished();
}
API cudaError_t cudaDeviceSynchronize(void) {
    NOTE();
    if (failed()) return broken;
    nullcard_take(here(), 0);
    settle();
    host_waited_for(NULL);
    return finished();
}
/* "Not ready" once, where anything waits; whoever asks again finds that it went on meanwhile. */
API cudaError_t cudaStreamQuery(cudaStream_t s) {
    NOTE();
    if (failed()) return broken;
    int waits = waiting_copies(~0ull, 0, s, 0) || late_does(IS_WAITING, s, NULL, ~0ull);
    if (waits && !of(s)->asked++) return fail(cudaErrorNotReady);
    settle_stream(s);
    host_waited_for(clocks[of(s)->actor]);
    return finished();
}
API cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned f) {
    struct event *x = (struct event *)e;
    NOTE();
    if (failed()) return broken;
    if (!x->is_recorded) return cudaSuccess;
    waiting_copies(x->number, 0, x->stream, 1);
    late_does(WAIT, s, x->stream, x->position);
    if (races) {
        pthread_mutex_lock(&race_lock);
        join(clocks[of(s)->actor], x->clock);
        pthread_mutex_unlock(&race_lock);
    }
    return cudaSuccess;
}
API cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *c) {
    *c = of(s)->capturing;
    return cudaSuccess;
}
API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *c, unsigned long long *id,
                                         cudaGraph_t *g, const cudaGraphNode_t **deps, const cudaGraphEdgeData **edges,
                                         size_t *n) {
    *c = of(s)->capturing;
    if (id) *id = 1;
    if (n) *n = 0;
    if (deps) *deps = NULL;
    if (edges) *edges = NULL;
    if (g) *g = NULL;
    return cudaSuccess;
}
API cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode m) {
    NOTE();
    of(s)->capturing = 1;
    return cudaSuccess;
}
API cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    NOTE();
    of(s)->capturing = 0;
    *g = nullcard_handle();
    return cudaSuccess;
}
API cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *m) { return cudaSuccess; }
API cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long f) {
    NOTE();
    *e = nullcard_handle();
    return cudaSuccess;
}
API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long f) {
    NOTE();
    *e = nullcard_handle();
    return cudaSuccess;
}
API cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t *nodes, size_t *n) {
    NOTE();
    *n = 0;
    return cudaSuccess;
}
API cudaError_t cudaUserObjectCreate(cudaUserObject_t *o, void *p, cudaHostFn_t f, unsigned n, unsigned fl) {
    NOTE();
    *o = nullcard_handle();
    return cudaSuccess;
}
API cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void *data) {
    NOTE();
    settle_stream(s);
    f(data);
    return cudaSuccess;
}
API cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void *data, unsigned fl) {
    NOTE();
    settle_stream(s);
    f(s, cudaSuccess, data);
    return cudaSuccess;
}
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned f) {
    NOTE();
    if (failed()) return broken;
    struct event *x = calloc(1, sizeof *x);
    x->has_no_time = f & cudaEventDisableTiming;
    *e = (cudaEvent_t)x;
    return cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
API cudaError_t cudaEventDestroy(cudaEvent_t e) {
    NOTE();
    free(e);
    return cudaSuccess;
}
API cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    NOTE();
    if (failed()) return broken;
    struct event *x = (struct event *)e;
    x->at = now();
    x->number = copies_begun;
    x->position = of(s)->queued;
    x->stream = s;
    x->is_recorded = 1;
    x->asked = 0;
    if (races) {
        pthread_mutex_lock(&race_lock);
        join(clocks[of(s)->actor], clocks[HOST]);
        memcpy(x->clock, clocks[of(s)->actor], sizeof x->clock);
        pthread_mutex_unlock(&race_lock);
    }
    return cudaSuccess;
}
API cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned f) { return cudaEventRecord(e, s); }
static int is_pending(struct event *x) {
    return x->is_recorded &&
           (waiting_copies(x->number, 0, x->stream, 0) || late_does(IS_WAITING, x->stream, NULL, x->position));
}
API cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    struct event *x = (struct event *)e;
    NOTE();
    if (failed()) return broken;
    if (!x->is_recorded) return cudaSuccess;
    waiting_copies(x->number, 0, x->stream, 1);
    late_does(RUN, x->stream, NULL, x->position);
    host_waited_for(x->clock);
    return finished();
}
API cudaError_t cudaEventQuery(cudaEvent_t e) {
    struct event *x = (struct event *)e;
    NOTE();
    if (failed()) return broken;
    if (is_pending(x) && !x->asked++) return fail(cudaErrorNotReady);
    return cudaEventSynchronize(e);
}
API cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    struct event *x = (struct event *)a, *y = (struct event *)b;
    NOTE();
    if (failed()) return broken;
    if (!x->is_recorded || !y->is_recorded || x->has_no_time || y->has_no_time)
        return fail(cudaErrorInvalidResourceHandle);
    if (is_pending(x) || is_pending(y)) return fail(cudaErrorNotReady);
    *ms = y->at - x->at;
    return cudaSuccess;
}

/* ---- kernels ---- */
struct configuration {
    dim3 grid, block;
    size_t shared;
    void *stream;
};
static __thread struct configuration pushed[16];
static __thread int depth;
API void **__cudaRegisterFatBinary(void *binary) { return calloc(1, 64); }
API void __cudaRegisterFatBinaryEnd(void **handle) {}
API void __cudaUnregisterFatBinary(void **handle) {}
API void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int limit, void *tid,
                                void *bid, void *bd, void *gd, int *w) {
    pthread_mutex_lock(&lock);
    kernel_of(host, name);
    pthread_mutex_unlock(&lock);
}
API void __cudaRegisterVar(void **handle, char *host, char *address, const char *name, int ext, size_t size,
                           int constant, int global) {}
API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    pushed[depth++ & 15] = (struct configuration){grid, block, shared, stream};
    return 0;
}
API cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    struct configuration c = pushed[--depth & 15];
    *grid = c.grid;
    *block = c.block;
    *shared = c.shared;
    *(void **)stream = c.stream;
    return cudaSuccess;
}
API cudaError_t __cudaGetKernel(cudaKernel_t *k, const void *function) {
    *k = (cudaKernel_t)function;
    return cudaSuccess;
}
API cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 g, dim3 b, void **args, size_t shared, cudaStream_t s) {
    return launch(k);
}
API cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **args, size_t shared, cudaStream_t s) {
    return launch(f);
}
API cudaError_t cudaLaunchCooperativeKernel(const void *f, dim3 g, dim3 b, void **args, size_t shared, cudaStream_t s) {
    return launch(f);
}
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **args) { return launch(f); }
API void nullcard_launch(const char *name) {
    launch(name);
    kernel_of(name, NULL)->name = name;
} /* of cuBLAS and of modules */
/* For which architecture the code is that this card runs: the wheel has none for 8.9, which runs that of 8.6. CUB's scans fail
 * with any other number than one that they were compiled for. */
static int compiled_for(void) {
    static const int has[] = {75, 80, 86, 90, 100, 120};
    int best = has[0];
    for (unsigned i = 0; i < sizeof has / sizeof *has; i++)
        if (has[i] <= cards[here()].major * 10 + cards[here()].minor) best = has[i];
    return best;
}
API cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024;
    a->numRegs = 32;
    a->ptxVersion = a->binaryVersion = compiled_for();
    a->maxDynamicSharedSizeBytes = 101376;
    return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *f, int block, size_t shared) {
    *n = block > 768 ? 1 : 1536 / (block ? block : 1);
    if (*n > 16) *n = 16;
    return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int block, size_t shared,
                                                                       unsigned fl) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(n, f, block, shared);
}
