/* The null card as NVML tells of it: memory in use by all processes that share NULLCARD_STATE. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "card.h"
typedef uint64_t u64;
enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
static char handles[4]; /* one for each card; NVML numbers them by their PCI bus, whatever CUDA_VISIBLE_DEVICES says */
static int card(void *handle) { return (char *)handle - handles; }
struct process {
    unsigned pid;
    u64 used;
    unsigned gpu_instance, compute_instance;
};
#define TEXT(function, text)                                                                                           \
    int function(void *d, char *s, unsigned n) {                                                                       \
        if (nullcard_is_gone(card(d))) return GPU_IS_LOST;                                                             \
        snprintf(s, n, "%s", text);                                                                                    \
        return OK;                                                                                                     \
    }
static const char *name(void *d) {
    const char *n, *u;
    int a, b;
    nullcard_identity(card(d), &n, &u, &a, &b);
    return n;
}
static const char *uuid(void *d) {
    static __thread char s[64];
    const char *n, *u;
    int a, b;
    nullcard_identity(card(d), &n, &u, &a, &b);
    snprintf(s, 64, "GPU-%s", u);
    return s;
}
int nvmlInit(void) { return OK; }
int nvmlInit_v2(void) { return OK; }
int nvmlInitWithFlags(unsigned f) { return OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int e) {
    return e == OK              ? "Success"
           : e == NOT_SUPPORTED ? "Not Supported"
           : e == NOT_FOUND     ? "Not Found"
                                : "Null card error";
}
int nvmlSystemGetDriverVersion(char *s, unsigned n) {
    snprintf(s, n, "600.00.01");
    return OK;
}
int nvmlSystemGetCudaDriverVersion(int *v) {
    *v = nullcard_driver();
    return OK;
}
int nvmlSystemGetCudaDriverVersion_v2(int *v) {
    *v = nullcard_driver();
    return OK;
}
int nvmlDeviceGetCount(unsigned *n) {
    *n = nullcard_cards();
    return OK;
}
int nvmlDeviceGetCount_v2(unsigned *n) {
    *n = nullcard_cards();
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) {
    if (i >= nullcard_cards()) return NOT_FOUND;
    *d = &handles[i];
    return OK;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *s, void **d) {
    unsigned bus = 0;
    sscanf(s, "%*x:%x", &bus);
    return bus ? nvmlDeviceGetHandleByIndex_v2(bus - 1, d) : NOT_FOUND;
}
int nvmlDeviceGetHandleByUUID(const char *s, void **d) {
    for (int i = 0; i < nullcard_cards(); i++) {
        *d = &handles[i];
        if (!strcmp(s, uuid(*d))) return OK;
    }
    return NOT_FOUND;
}
int nvmlDeviceGetIndex(void *d, unsigned *i) {
    *i = card(d);
    return OK;
}
TEXT(nvmlDeviceGetName, name(d))
TEXT(nvmlDeviceGetUUID, uuid(d))
struct memory {
    u64 total, free, used;
};
int nvmlDeviceGetMemoryInfo(void *d, struct memory *m) {
    if (nullcard_is_gone(card(d))) return GPU_IS_LOST;
    u64 c = nullcard_capacity(card(d)), u = nullcard_used(card(d));
    *m = (struct memory){c, u > c ? 0 : c - u, u};
    return OK;
}
int nvmlDeviceGetMigMode(void *d, unsigned *a, unsigned *b) { return NOT_SUPPORTED; }
int nvmlDeviceGetDisplayActive(void *d, int *a) {
    *a = 0;
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(void *d, int *a, int *b) {
    const char *n, *u;
    nullcard_identity(card(d), &n, &u, a, b);
    return OK;
}
int nvmlDeviceGetUtilizationRates(void *d, unsigned *u) {
    u[0] = 7;
    u[1] = 3;
    return OK;
}
int nvmlDeviceGetTemperature(void *d, int kind, unsigned *t) {
    *t = 41;
    return OK;
}
int nvmlDeviceGetPowerUsage(void *d, unsigned *w) {
    *w = 23450;
    return OK;
}
int nvmlDeviceGetEnforcedPowerLimit(void *d, unsigned *w) {
    *w = 170000;
    return OK;
}
static int compute(void *d, unsigned *n, struct process *p) {
    unsigned room = *n, found = 0;
    int pid;
    u64 used;
    for (int i = 0; i < 64; i++)
        if (nullcard_holder(card(d), i, &pid, &used)) {
            if (found < room && p) p[found] = (struct process){pid, used, ~0u, ~0u};
            found++;
        }
    *n = found;
    return found > room ? INSUFFICIENT_SIZE : OK;
}
int nvmlDeviceGetComputeRunningProcesses(void *d, unsigned *n, struct process *p) { return compute(d, n, p); }
int nvmlDeviceGetComputeRunningProcesses_v2(void *d, unsigned *n, struct process *p) { return compute(d, n, p); }
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n, struct process *p) { return compute(d, n, p); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *d, unsigned *n, struct process *p) {
    *n = 0;
    return OK;
}
#define REFUSES(function)                                                                                              \
    int function(void) { return NOT_SUPPORTED; }
REFUSES(nvmlDeviceGetGpuFabricInfoV)
REFUSES(nvmlDeviceGetNvLinkRemoteDeviceType) REFUSES(nvmlDeviceGetNvLinkRemotePciInfo_v2)
    REFUSES(nvmlDeviceGetP2PStatus)
