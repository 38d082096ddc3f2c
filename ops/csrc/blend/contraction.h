// Keeps a product and a sum two roundings, as in NumPy and on processors that do not have
// both in one instruction: results are the same bits everywhere.
#pragma once

#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
