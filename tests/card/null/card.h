/* What the libraries of the null card share: runtime.c defines it. */
#ifndef NULLCARD_H
#define NULLCARD_H
#include <stdint.h>
void nullcard_note(const char *name, int *at); /* count a call; *at keeps the place of its counter */
void *nullcard_handle(void);                   /* something to point at */
void nullcard_launch(const char *name);        /* count a kernel by its name alone */
void *nullcard_host(const void *device);       /* where the bytes of a device address lie */
void *nullcard_reserve(uint64_t bytes);        /* device addresses without memory */
int nullcard_take(int card, int64_t bytes);     /* memory of a card; 0 where it does not fit */
void nullcard_forget(void *device, uint64_t bytes);
int nullcard_cards(void), nullcard_shown(void); /* there, and of these the ones that CUDA shows */
int nullcard_card(int device);                  /* the card of CUDA's number; -1: of the current device */
int nullcard_device(void);                      /* CUDA's number of the current device */
void nullcard_choose(int device);
uint64_t nullcard_used(int card), nullcard_capacity(int card);
int nullcard_holder(int card, int slot, int *pid, uint64_t *used);
void nullcard_identity(int card, const char **name, const char **uuid, int *major, int *minor);
int nullcard_driver(void), nullcard_is_gone(int card);
#endif
