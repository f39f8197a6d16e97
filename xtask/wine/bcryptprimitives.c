/* Stands in for Windows' bcryptprimitives.dll under Wine 8, which has none. Rust's standard library takes its
   random numbers from there. Invariant: ProcessPrng fills the buffer or says that it did not. */
#include <stddef.h>
#include <windows.h>

/* RtlGenRandom, by the only name under which advapi32.dll exports it. */
BOOLEAN NTAPI SystemFunction036(void *buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *buffer, size_t length) {
    return length <= MAXDWORD && SystemFunction036(buffer, (ULONG)length);
}
