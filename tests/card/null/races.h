/* Races: which accesses to memory are ordered, by vector clocks (as FastTrack: Flanagan and Freund, PLDI 2009).
 *
 * Actors are the host, all of its threads together, and each stream. Work on a stream comes after what the host did
 * before it was queued, and after the events that the stream waits for; the host comes after what it waited for. Each
 * piece of 512 bytes of the card's memory and of pinned memory knows its last write and its reads since, by actor and
 * time: an access that is not ordered after them is a race, whichever way it went this time. Pageable memory is not
 * watched: a copy is done with it when it returns.
 */
#define ACTORS 128
#define GRAIN 512
#define READERS 4
#define HOST 0
#define EVERY_STREAM 1
#define OF_HOST ((cudaStream_t)-1ll)
struct granule {
    u32 written, read[READERS];
    uint8_t writer, reader[READERS], readers;
    uint16_t written_by, read_by[READERS];
};
static pthread_mutex_t race_lock = PTHREAD_MUTEX_INITIALIZER;
static u32 clocks[ACTORS][ACTORS];
static struct granule *device_marks;
static char race_text[512];
static const char *works[1 << 16]; /* names of what accesses memory */
static int works_known = 1;

static int watch_races(void) {
    if (!races) return 1;
    u64 bytes = SPACE / GRAIN * sizeof *device_marks;
    device_marks = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return device_marks != MAP_FAILED && !madvise(device_marks, bytes, MADV_DONTDUMP);
}
static uint16_t work_named(const char *name) {
    for (int i = works_known - 1; i > 0; i--)
        if (!strcmp(works[i], name)) return i;
    if (works_known == 1 << 16) return 0;
    works[works_known] = strdup(name);
    return works_known++;
}
static void join(u32 *later, const u32 *earlier) {
    for (int i = 0; i < ACTORS; i++)
        if (earlier[i] > later[i]) later[i] = earlier[i];
}
/* Work begins on a stream, or on the host. The default stream waits for every stream that was created without
 * cudaStreamNonBlocking, and each of those for it. */
static void begin_work(struct stream *s) {
    if (!s) {
        clocks[HOST][HOST]++;
        return;
    }
    u32 *own = clocks[s->actor];
    join(own, clocks[HOST]);
    for (int i = EVERY_STREAM; i < actors; i++)
        if (!actor_is_free[i] && (s == &default_stream || (!actor_is_free[s->actor] && i == default_stream.actor)))
            join(own, clocks[i]);
    own[s->actor]++;
}
static void host_waited_for(const u32 *clock) {
    if (!races) return;
    pthread_mutex_lock(&race_lock);
    if (clock) join(clocks[HOST], clock);
    else
        for (int i = EVERY_STREAM; i < actors; i++) join(clocks[HOST], clocks[i]);
    pthread_mutex_unlock(&race_lock);
}
static void actor_name(int actor, char *name, size_t size) {
    if (actor == HOST) snprintf(name, size, "the host");
    else if (actor == default_stream.actor) snprintf(name, size, "the default stream");
    else snprintf(name, size, "stream %d", actor);
}
static void report_race(int actor, uint16_t work, int writes, int before, uint16_t work_before, int wrote) {
    char now[32], earlier[32];
    actor_name(actor, now, sizeof now);
    actor_name(before, earlier, sizeof earlier);
    NOTED("race");
    snprintf(race_text, sizeof race_text, "race: %s on %s %s memory that %s on %s %s, and nothing orders the two",
             works[work], now, writes ? "writes" : "reads", works[work_before], earlier, wrote ? "writes" : "reads");
    broken_by(race_text);
}
/* One access to one piece; 1 where it is a race. Caller holds race_lock. */
static int touch(struct granule *g, int actor, int writes, uint16_t work) {
    const u32 *own = clocks[actor];
    if (g->writer != actor && g->written > own[g->writer]) {
        report_race(actor, work, writes, g->writer, g->written_by, 1);
        return 1;
    }
    for (int i = 0; writes && i < g->readers; i++)
        if (g->reader[i] != actor && g->read[i] > own[g->reader[i]]) {
            report_race(actor, work, writes, g->reader[i], g->read_by[i], 0);
            return 1;
        }
    if (writes) {
        g->written = own[actor];
        g->writer = actor;
        g->written_by = work;
        g->readers = 0;
        return 0;
    }
    int at = 0;
    while (at < g->readers && g->reader[at] != actor && g->read[at] > own[g->reader[at]]) at++;
    if (at == READERS) at = 0; /* more streams read at once than are kept: the first is forgotten */
    if (at == g->readers) g->readers++;
    g->read[at] = own[actor];
    g->reader[at] = actor;
    g->read_by[at] = work;
    return 0;
}
/* What a stream (OF_HOST: the host) does to n bytes from p. 1 where it is a race. */
API int nullcard_touch(cudaStream_t stream, const void *p, u64 n, int writes, const char *name) {
    if (!races || !n) return 0;
    struct granule *first;
    u64 from = 0;
    if (on_device(p)) {
        from = (char *)p - device_at;
        first = device_marks;
    } else {
        pthread_mutex_lock(&lock);
        struct block *b = find(p);
        if (!b || abs(b->kind) != cudaMemoryTypeHost) {
            pthread_mutex_unlock(&lock);
            return 0;
        }
        if (!b->marks) b->marks = calloc(b->bytes / GRAIN + 2, sizeof *b->marks);
        first = b->marks;
        from = (char *)p - b->at;
        pthread_mutex_unlock(&lock);
    }
    pthread_mutex_lock(&race_lock);
    int actor = stream == OF_HOST ? HOST : of(stream)->actor, race = 0;
    if (actor == HOST) begin_work(NULL);
    uint16_t work = work_named(name);
    for (u64 i = from / GRAIN; i <= (from + n - 1) / GRAIN && !race; i++) race = touch(&first[i], actor, writes, work);
    pthread_mutex_unlock(&race_lock);
    return race;
}
/* A piece of work is queued on a stream: its accesses follow. */
API void nullcard_work(cudaStream_t stream) {
    if (!races) return;
    pthread_mutex_lock(&race_lock);
    begin_work(of(stream));
    pthread_mutex_unlock(&race_lock);
}
API const char *nullcard_race(void) { return race_text; }
API int nullcard_races(void) { return races; }
