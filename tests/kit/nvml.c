/* A libnvidia-ml.so.1 that answers from a text file, read again at each call: FAKE_NVML_SCENARIO names it.

   Lines are "key value": "init !9", "driver 580.65.06", "count 2", "0.name ...", "1.used 614". A value "!15" makes the
   call fail with that NVML error; a card's key that is missing makes it fail with NOT_SUPPORTED, as cards do with what
   they do not know. Memory is in MiB. tests/fake_nvml.py builds this and writes the files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, MAX_PROCESSES = 32 };
static const unsigned long long MIB = 1ULL << 20, NOT_AVAILABLE = ~0ULL;

typedef void *Device; /* the index + 1 */
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } Process;

/* The text after key, in value; what a missing key means is the caller's. */
static int look_up(const char *key, char *value, size_t size, int missing) {
    const char *path = getenv("FAKE_NVML_SCENARIO");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    size_t length = strlen(key);
    int result = missing;
    value[0] = 0;
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) || line[length] != ' ') continue;
        line[strcspn(line, "\n")] = 0;
        result = line[length + 1] == '!' ? atoi(line + length + 2) : SUCCESS;
        snprintf(value, size, "%s", line + length + 1);
        break;
    }
    if (file) fclose(file);
    return result;
}

static int text(Device card, const char *field, char *value, unsigned size) {
    char key[64];
    snprintf(key, sizeof key, "%ld.%s", (long)card - 1, field);
    return look_up(key, value, size, NOT_SUPPORTED);
}

static int number(Device card, const char *field, unsigned *value) {
    char found[512];
    int result = text(card, field, found, sizeof found);
    if (result == SUCCESS) *value = (unsigned)strtoul(found, NULL, 10);
    return result;
}

int nvmlInitWithFlags(unsigned flags) { char value[512]; (void)flags; return look_up("init", value, sizeof value, SUCCESS); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int result) { (void)result; return "an error that only the fake knows"; }
int nvmlSystemGetDriverVersion(char *value, unsigned size) { return look_up("driver", value, size, NOT_SUPPORTED); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    char value[512];
    int result = look_up("count", value, sizeof value, SUCCESS);
    *count = (unsigned)atoi(value);
    return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *card) {
    char value[512];
    *card = (Device)(long)(index + 1);
    int result = text(*card, "handle", value, sizeof value);
    return result == NOT_SUPPORTED ? SUCCESS : result;
}

int nvmlDeviceGetName(Device card, char *value, unsigned size) { return text(card, "name", value, size); }
int nvmlDeviceGetUUID(Device card, char *value, unsigned size) { return text(card, "uuid", value, size); }
int nvmlDeviceGetTemperature(Device card, int sensor, unsigned *value) { (void)sensor; return number(card, "temperature", value); }
int nvmlDeviceGetPowerUsage(Device card, unsigned *value) { return number(card, "power", value); }
int nvmlDeviceGetEnforcedPowerLimit(Device card, unsigned *value) { return number(card, "power_limit", value); }
int nvmlDeviceGetUtilizationRates(Device card, Utilization *value) { value->memory = 0; return number(card, "utilization", &value->gpu); }

int nvmlDeviceGetMemoryInfo(Device card, Memory *memory) {
    unsigned total = 0, used = 0;
    int result = number(card, "total", &total);
    if (result == SUCCESS) result = number(card, "used", &used);
    memory->total = total * MIB, memory->used = used * MIB, memory->free = (total - used) * MIB;
    return result;
}

int nvmlDeviceGetCudaComputeCapability(Device card, int *major, int *minor) {
    char value[512];
    int result = text(card, "capability", value, sizeof value);
    if (result == SUCCESS) sscanf(value, "%d.%d", major, minor);
    return result;
}

int nvmlDeviceGetMigMode(Device card, unsigned *current, unsigned *pending) {
    int result = number(card, "mig", current);
    *pending = *current;
    return result;
}

int nvmlDeviceGetDisplayActive(Device card, unsigned *active) { return number(card, "display", active); }

/* "4242:20480 77:-": pid and MiB; "-" is what Windows' display driver model says. */
static int processes(Device card, const char *field, unsigned *count, Process *found) {
    char value[512], *rest = value, *word;
    unsigned n = 0;
    Process all[MAX_PROCESSES];
    int result = text(card, field, value, sizeof value);
    if (result != SUCCESS) return result;
    while (n < MAX_PROCESSES && (word = strtok_r(rest, " ", &rest))) {
        const char *used = strchr(word, ':') + 1;
        all[n].pid = (unsigned)atoi(word), all[n].gpu_instance = all[n].compute_instance = ~0U;
        all[n++].used = *used == '-' ? NOT_AVAILABLE : strtoull(used, NULL, 10) * MIB;
    }
    result = *count < n ? INSUFFICIENT_SIZE : SUCCESS;
    if (result == SUCCESS && found) memcpy(found, all, n * sizeof *all);
    *count = n;
    return result;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device card, unsigned *count, Process *found) { return processes(card, "compute", count, found); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(Device card, unsigned *count, Process *found) { return processes(card, "graphics", count, found); }
