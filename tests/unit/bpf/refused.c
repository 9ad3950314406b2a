/* SPDX-License-Identifier: Apache-2.0 */
/* Objects that clang makes and the loader must refuse with a reason: one for each macro. */
typedef unsigned long long u64;

#define ENTRY    __attribute__((section("lambda/map")))
#define NOINLINE __attribute__((noinline))

#if defined(MISSPELT)
void *lambda_memcopy(void *dst, const void *src, u64 n);
ENTRY long entry(char *p, char *q)
{
	return lambda_memcopy(p, q, 8) == p;
}
#elif defined(UNDEFINED)
long somewhere_else_entirely(long x);
ENTRY long entry(long x)
{
	return somewhere_else_entirely(x) + 1;
}
#elif defined(UNDEFINED_DATA)
extern long elsewhere;
ENTRY long entry(long x)
{
	return elsewhere + x;
}
#elif defined(FUNCTION_ADDRESS)
static NOINLINE long one(long x)
{
	return x + 1;
}
long keep(long (*f)(long));
ENTRY long entry(long x)
{
	return (long)one + one(x);
}
#elif defined(FUNCTION_TABLE)
static long one(long x)
{
	return x + 1;
}
static long two(long x)
{
	return x + 2;
}
static long (*const table[])(long) = {one, two};
ENTRY long entry(long x)
{
	return table[x & 1](x);
}
#elif defined(BY_NUMBER)
static long (*const ktime)(void) = (long (*)(void))5;
ENTRY long entry(long x)
{
	return ktime() + x;
}
#elif defined(MAP)
struct {
	int type;
	int size;
} things __attribute__((section(".maps")));
ENTRY long entry(long x)
{
	return (long)&things + x;
}
#elif defined(CONSTRUCTOR)
long ready;
__attribute__((constructor)) void prepare(void)
{
	long x = 1;

	__asm__ volatile("%0 += 1" : "+r"(x)); /* not to be computed by the compiler */
	ready = x;
}
ENTRY long entry(long x)
{
	return ready + x;
}
#elif defined(TOO_MUCH_DATA)
char vast[3ull << 30];
ENTRY long entry(long x)
{
	return vast[x];
}
#elif defined(NO_ENTRY)
static NOINLINE __attribute__((used)) long only(long x)
{
	return x;
}
#elif defined(NO_CODE)
long just_data = 1;
#elif defined(ASSEMBLY)
__asm__(".section lambda/map,\"ax\",@progbits\n"
	"r0 = 0\n"
	"exit\n");
#endif
