/* cuDNN: torch asks for its version only; a convolution would find no plan. CUDNN_*: the version that torch requires. */
#include <stddef.h>
#include "card.h"
size_t cudnnGetVersion(void) { return CUDNN_MAJOR * 10000 + CUDNN_MINOR * 100 + CUDNN_PATCH; }
size_t cudnnGetCudartVersion(void) { return nullcard_driver(); }
int cudnnGetProperty(int which, int *value) {
    *value = which == 0 ? CUDNN_MAJOR : which == 1 ? CUDNN_MINOR : CUDNN_PATCH;
    return 0;
}
