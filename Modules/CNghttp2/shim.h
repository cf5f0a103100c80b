#include <nghttp2/nghttp2.h>

/* Limits the frames that the library itself calls suspicious, where it knows them: from 1.67 on. */
static inline void limpet_option_set_glitch_rate_limit(nghttp2_option *option, uint64_t burst, uint64_t rate) {
#if NGHTTP2_VERSION_NUM >= 0x014300
    nghttp2_option_set_glitch_rate_limit(option, burst, rate);
#else
    (void)option;
    (void)burst;
    (void)rate;
#endif
}
