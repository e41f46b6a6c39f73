/* A library that allocates in its constructor and frees in its destructor. */
#include <stdlib.h>
#include <string.h>

static char *block;

__attribute__((constructor)) static void begin(void) { block = strdup("allocated by a constructor"); }
__attribute__((destructor)) static void end(void) { free(block); }

char *plugin_block(void) { return block; }
