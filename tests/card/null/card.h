/* What the libraries of the null card share: runtime.c defines it. */
#ifndef NULLCARD_H
#define NULLCARD_H
#include <stdint.h>
void nullcard_note(const char *name, int *at); /* count a call; *at keeps the place of its counter */
void *nullcard_handle(void);                   /* something to point at */
void nullcard_launch(const char *name);        /* count a kernel by its name alone */
void *nullcard_host(const void *device);       /* where the bytes of a device address lie */
void *nullcard_reserve(uint64_t bytes);        /* device addresses without memory */
int nullcard_take(int64_t bytes);              /* memory of the card; 0 where it does not fit */
void nullcard_forget(void *device, uint64_t bytes);
uint64_t nullcard_used(void), nullcard_capacity(void);
int nullcard_holder(int slot, int *pid, uint64_t *used);
void nullcard_identity(const char **name, const char **uuid, int *major, int *minor);
int nullcard_driver(void), nullcard_is_gone(void);
#endif
