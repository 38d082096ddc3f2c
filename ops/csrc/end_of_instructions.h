// GCC's target ends with the file, clang's here.
#if defined(__clang__)
#pragma clang attribute pop
#endif
