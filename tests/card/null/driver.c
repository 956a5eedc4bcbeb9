/* The driver's functions that torch asks for: virtual memory (expandable segments), contexts, attributes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cuda.h"
#include "card.h"
#undef cuMemGetAddressRange
#undef cuDevicePrimaryCtxRelease
#define API __attribute__((visibility("default")))
#define NOTE()                                                                                                         \
    do {                                                                                                               \
        static int at_;                                                                                                \
        nullcard_note(__func__, &at_);                                                                                 \
    } while (0)
struct piece {
    uint64_t bytes;
    int card;
};
void nullcard_settle(void);
API CUresult cuInit(unsigned f) { return 0; }
API CUresult cuDriverGetVersion(int *v) {
    *v = nullcard_driver();
    return 0;
}
API CUresult cuDeviceGetCount(int *n) {
    *n = nullcard_shown();
    return 0;
}
API CUresult cuDeviceGet(CUdevice *d, int n) {
    *d = n;
    return n < 0 || n >= nullcard_shown() ? CUDA_ERROR_INVALID_DEVICE : 0;
}
API CUresult cuDeviceGetName(char *s, int n, CUdevice d) {
    const char *name, *uuid;
    int major, minor;
    nullcard_identity(nullcard_card(d), &name, &uuid, &major, &minor);
    snprintf(s, n, "%s", name);
    return 0;
}
int cudaDeviceGetAttribute(int *, int, int);
API CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice d) {
    if (a == CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED) {
        *v = 1;
        return 0;
    }
    return cudaDeviceGetAttribute(v, (int)a, d);
}
API CUresult cuDeviceTotalMem_v2(size_t *n, CUdevice d) {
    *n = nullcard_capacity(nullcard_card(d));
    return 0;
}
static char contexts[4]; /* one for each of CUDA's numbers */
API CUresult cuCtxGetCurrent(CUcontext *c) {
    *c = (CUcontext)&contexts[nullcard_device()];
    return 0;
}
API CUresult cuCtxSetCurrent(CUcontext c) {
    if (c) nullcard_choose((char *)c - contexts);
    return 0;
}
API CUresult cuCtxGetDevice(CUdevice *d) {
    *d = nullcard_device();
    return 0;
}
API CUresult cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice d) {
    nullcard_take(nullcard_card(d), 0);
    *c = (CUcontext)&contexts[d];
    return 0;
}
API CUresult cuDevicePrimaryCtxGetState(CUdevice d, unsigned *flags, int *active) {
    if (flags) *flags = 0;
    *active = 1;
    return 0;
}
API CUresult cuGetErrorString(CUresult e, const char **s) {
    *s = e == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : e ? "null card error" : "no error";
    return 0;
}
API CUresult cuGetErrorName(CUresult e, const char **s) { return cuGetErrorString(e, s); }
API CUresult cuMemGetAllocationGranularity(size_t *n, const CUmemAllocationProp *p,
                                           CUmemAllocationGranularity_flags o) {
    *n = 2 << 20;
    return 0;
}
API CUresult cuMemAddressReserve(CUdeviceptr *p, size_t n, size_t align, CUdeviceptr at, unsigned long long f) {
    NOTE();
    *p = (CUdeviceptr)nullcard_reserve(n);
    return *p ? 0 : CUDA_ERROR_OUT_OF_MEMORY;
}
API CUresult cuMemAddressFree(CUdeviceptr p, size_t n) {
    NOTE();
    return 0;
}
API CUresult cuMemCreate(CUmemGenericAllocationHandle *h, size_t n, const CUmemAllocationProp *p,
                         unsigned long long f) {
    NOTE();
    int card = nullcard_card(p->location.id);
    if (!nullcard_take(card, n)) return CUDA_ERROR_OUT_OF_MEMORY;
    struct piece *x = calloc(1, sizeof *x);
    *x = (struct piece){n, card};
    *h = (CUmemGenericAllocationHandle)x;
    return 0;
}
API CUresult cuMemMap(CUdeviceptr p, size_t n, size_t off, CUmemGenericAllocationHandle h, unsigned long long f) {
    NOTE();
    return 0;
}
API CUresult cuMemSetAccess(CUdeviceptr p, size_t n, const CUmemAccessDesc *d, size_t c) {
    NOTE();
    return 0;
}
API CUresult cuMemUnmap(CUdeviceptr p, size_t n) {
    NOTE();
    nullcard_settle();
    nullcard_forget((void *)p, n);
    return 0;
}
API CUresult cuMemRelease(CUmemGenericAllocationHandle h) {
    NOTE();
    struct piece *x = (struct piece *)h;
    nullcard_take(x->card, -(int64_t)x->bytes);
    free(x);
    return 0;
}
API CUresult cuPointerGetAttribute(void *v, CUpointer_attribute a, CUdeviceptr p) {
    *(unsigned *)v = a == CU_POINTER_ATTRIBUTE_MEMORY_TYPE ? CU_MEMORYTYPE_DEVICE : 0;
    return 0;
}
/* modules: what triton or nvrtc makes */
API CUresult cuModuleLoadData(CUmodule *m, const void *image) {
    NOTE();
    *m = nullcard_handle();
    return 0;
}
API CUresult cuModuleLoadDataEx(CUmodule *m, const void *image, unsigned n, CUjit_option *o, void **v) {
    NOTE();
    *m = nullcard_handle();
    return 0;
}
API CUresult cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) {
    NOTE();
    *f = (CUfunction)strdup(name);
    return 0;
}
API CUresult cuFuncGetAttribute(int *v, CUfunction_attribute a, CUfunction f) {
    *v = a == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : a == CU_FUNC_ATTRIBUTE_NUM_REGS ? 32 : 0;
    return 0;
}
API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                            unsigned s, CUstream st, void **a, void **e) {
    nullcard_launch((const char *)f);
    return 0;
}
API CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **a, void **e) {
    nullcard_launch((const char *)f);
    return 0;
}
API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, CUfunction f, int b, size_t s) {
    *n = 2;
    return 0;
}
/* Workers leave by os._exit: their counts are written then too. */
#include <dlfcn.h>
void nullcard_leave(void);
API void _exit(int code) {
    nullcard_leave();
    ((void (*)(int))dlsym(RTLD_NEXT, "_exit"))(code);
    __builtin_unreachable();
}
