// Runs the blocks of a GPU's grid on one CPU thread. Every GPU thread is a coroutine with a stack of its own, which gives way at barriers and
// shuffles. Compiled kernels call gpu_read, gpu_write and gpu_atomic before each access; a shadow word for every 4 bytes of memory knows who
// touched them. The first fault ends the launch and stays in `fault`, which Python turns into words.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { THREADS = 1024, LANES = 32, STACK = 256 << 10, PAGE = 4096, SITES = 1 << 16 };
enum { FORWARD, BACKWARD, RANDOM };                    // the order of threads and blocks
enum { READY, AT_BARRIER, AT_WARP_BARRIER, AT_SHUFFLE, HAS_READ, ENDED };  // a thread
enum { NONE, BEYOND, MISALIGNED, RACE, BLOCK_RACE, UNWRITTEN, DIVERGED, LANES_MISSING, NO_LANE, CONSTANT };  // faults; faults.py has the words
enum { GLOBAL, SHARED, CONSTANTS };                    // memory
enum { READ, WRITE, ATOMIC };                          // accesses

typedef struct { uint32_t moment; uint16_t thread, site, warp_moment; uint8_t bytes, access; } touch;  // moments: between two barriers
typedef struct { touch write, read, second, earlier; uint8_t known; } word;  // second: another thread of this block; earlier: another block
typedef struct { char *at; int64_t size, alignment; word *shadow; int64_t kind; } region;
typedef struct { int32_t kind, thread, site, access, other_thread, other_site, other_access, region; int64_t offset, size; int32_t block[3]; } report;

report fault;
int64_t gpu_accesses;

static int32_t *registers;  // the kernel's: tid, ntid, ctaid, nctaid (x, y, z each), laneid
static region *regions;
static int region_count, region_of_site[SITES];
static uint32_t moment, block_start, launch_start;
static int threads, current, state[THREADS], site_of[THREADS], order[THREADS];
static int32_t index_of[THREADS][3];
static uint16_t warp_moment[THREADS / LANES];
static uint32_t given[THREADS], members_of[THREADS], seed;
static void *stack_of[THREADS], *scheduler;
static char *stacks;
static void (*kernel)(void **);
static void **arguments;

// Saves what a function must keep, changes the stack, and goes on where that stack was left.
void gpu_switch(void **from, void *to);
__asm__(".text\n.globl gpu_switch\n.type gpu_switch,@function\ngpu_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nretq\n");

static void give_way(int to_state, int site) {
    int me = current;
    state[me] = to_state;
    site_of[me] = site;
    gpu_switch(&stack_of[me], scheduler);
}

static void resume(int thread) {
    current = thread;
    memcpy(registers, index_of[thread], sizeof index_of[thread]);
    registers[12] = thread % LANES;
    gpu_switch(&scheduler, stack_of[thread]);
}

static void note(int kind, int thread, int site) {
    fault = (report){.kind = kind, .thread = thread, .site = site, .other_thread = -1, .other_site = -1, .region = -1};
    memcpy(fault.block, registers + 6, sizeof fault.block);
}

static void stop(void) {  // the thread never goes on; the scheduler sees the fault
    void *left;
    gpu_switch(&left, scheduler);
}

// ---------------------------------------------------------------------------------------------------------- accesses

static int region_at(char *at, int site) {
    int last = region_of_site[site];
    if (last < region_count && at >= regions[last].at && at < regions[last].at + regions[last].size) return last;
    for (int i = 0; i < region_count; i++)
        if (at >= regions[i].at && at < regions[i].at + regions[i].size) return region_of_site[site] = i;
    return -1;
}

static int nearest(char *at) {
    int best = -1;
    int64_t distance = INT64_MAX;
    for (int i = 0; i < region_count; i++) {
        char *end = regions[i].at + regions[i].size;
        int64_t gap = at < regions[i].at ? regions[i].at - at : at - end;
        if (regions[i].kind != CONSTANTS && gap < distance) distance = gap, best = i;
    }
    return best;
}

static void refuse(int kind, int site, int access, int found, char *at, int64_t size, const touch *other) {
    note(kind, current, site);
    fault.access = access;
    fault.region = found;
    fault.offset = found < 0 ? (int64_t)at : at - regions[found].at;
    fault.size = size;
    if (other) fault.other_thread = other->thread, fault.other_site = other->site, fault.other_access = other->access;
    stop();
}

// Whether another thread touched the bytes, and no barrier lies between; or another block, in this launch.
static int clashes(const touch *other, const touch *me) {
    if (other->moment < launch_start || !(other->bytes & me->bytes) || (other->access == ATOMIC && me->access == ATOMIC)) return NONE;
    if (other->moment < block_start) return BLOCK_RACE;
    if (other->moment != me->moment || other->thread == me->thread) return NONE;
    return other->thread / LANES == me->thread / LANES && other->warp_moment != me->warp_moment ? NONE : RACE;
}

static void remember_read(word *w, touch me) {
    if (w->read.moment >= launch_start && w->read.moment < block_start) w->earlier = w->read;
    if (w->read.moment == me.moment && w->read.thread != me.thread) w->second = me;
    else w->read = me;
}

static void look_at(word *w, touch me, region *r, int found, char *at, int64_t size) {
    const touch *others[] = {&w->write, &w->read, &w->second, &w->earlier};
    for (int i = 0; i < (me.access == READ ? 1 : 4); i++) {
        int kind = clashes(others[i], &me);
        if (kind == RACE || (kind == BLOCK_RACE && r->kind == GLOBAL)) refuse(kind, me.site, me.access, found, at, size, others[i]);
    }
    int known = r->kind == SHARED && w->write.moment < block_start ? 0 : w->known;
    if (me.access != WRITE && me.bytes & ~known) refuse(UNWRITTEN, me.site, me.access, found, at, size, 0);
    if (me.access == READ) {
        remember_read(w, me);
    } else {
        w->write = me;
        w->known = known | me.bytes;
    }
}

static void look(char *at, int64_t size, int64_t alignment, int site, int access) {
    gpu_accesses++;
    char *stack = stacks + (size_t)current * STACK;
    if (at >= stack && at + size <= stack + STACK) return;  // its own variables
    int found = region_at(at, site);
    if (found < 0) refuse(BEYOND, site, access, nearest(at), at, size, 0);
    region *r = &regions[found];
    int64_t offset = at - r->at;
    if (offset + size > r->size) refuse(BEYOND, site, access, found, at, size, 0);
    if ((offset | r->alignment) & (alignment - 1)) refuse(MISALIGNED, site, access, found, at, size, 0);
    if (r->kind == CONSTANTS) {
        if (access != READ) refuse(CONSTANT, site, access, found, at, size, 0);
        return;
    }
    touch me = {moment, (uint16_t)current, (uint16_t)site, warp_moment[current / LANES], 15, (uint8_t)access};
    if (size % 4 == 0 && offset % 4 == 0) {
        for (int64_t i = 0; i < size / 4; i++) look_at(r->shadow + offset / 4 + i, me, r, found, at, size);
    } else {
        for (int64_t i = offset; i < offset + size; i++) {
            me.bytes = 1 << i % 4;
            look_at(r->shadow + i / 4, me, r, found, at, size);
        }
    }
}

void gpu_read(char *at, int64_t size, int64_t alignment, int32_t site) { look(at, size, alignment, site, READ); }
void gpu_write(char *at, int64_t size, int64_t alignment, int32_t site) { look(at, size, alignment, site, WRITE); }
void gpu_atomic(char *at, int64_t size, int64_t alignment, int32_t site) { look(at, size, alignment, site, ATOMIC); }

// --------------------------------------------------------------------------------------------- barriers and shuffles

void gpu_barrier(int32_t site) { give_way(AT_BARRIER, site); }

// Orders memory between the lanes of a warp, which a shuffle does not.
void gpu_warp_barrier(uint32_t members, int32_t site) {
    members_of[current] = members;
    give_way(AT_WARP_BARRIER, site);
}

typedef struct { int32_t value; int8_t valid; } exchanged;

// As PTX defines shfl.sync: mode 0 is idx, 1 up, 2 down, 3 bfly; c has the last lane, and the lanes of a segment in bits 8 to 12.
exchanged gpu_shuffle(uint32_t members, int32_t mode, int32_t value, int32_t b, int32_t c, int32_t site) {
    int me = current, lane = me % LANES, segment = c >> 8 & 31, last = (lane & segment) | (c & 31 & ~segment);
    given[me] = value;
    members_of[me] = members;
    give_way(AT_SHUFFLE, site);
    b &= 31;
    int from = mode == 0 ? (lane & segment) | (b & ~segment) : mode == 1 ? lane - b : mode == 2 ? lane + b : lane ^ b;
    int valid = mode == 1 ? from >= last : from <= last;
    from = (me - lane) + (valid ? from : lane);
    if (from >= threads || !(members >> from % LANES & 1)) {
        note(NO_LANE, me, site);
        fault.other_thread = from;
        stop();
    }
    exchanged result = {(int32_t)given[from], (int8_t)valid};
    give_way(HAS_READ, site);  // all lanes read before one gives the next value
    return result;
}

// Lets the lanes of warps go on whose members have all arrived. Returns whether any did.
static int release_warps(int waiting, int fail) {
    int released = 0;
    for (int first = 0; first < threads; first += LANES) {
        int end = first + LANES < threads ? first + LANES : threads;
        for (int t = first; t < end; t++) {
            if (state[t] != waiting) continue;
            int complete = 1, missing = -1;
            for (int other = first; other < end; other++)
                if (members_of[t] >> other % LANES & 1 && (state[other] != waiting || site_of[other] != site_of[t])) complete = 0, missing = other;
            if (complete) {
                warp_moment[first / LANES] += waiting == AT_WARP_BARRIER;
                uint32_t members = members_of[t];
                for (int other = first; other < end; other++) if (members >> other % LANES & 1) state[other] = READY, released = 1;
            } else if (fail) {
                note(LANES_MISSING, t, site_of[t]);
                fault.other_thread = missing;
                fault.other_site = state[missing] == ENDED ? -1 : site_of[missing];
                return 0;
            }
        }
    }
    return released;
}

// All threads must be at one barrier, or all at the end. Returns whether the block goes on.
static int release_block(void) {
    int waiting = -1, other = -1;
    for (int t = 0; t < threads; t++) if (state[t] == AT_BARRIER && waiting < 0) waiting = t;
    if (waiting < 0) return 0;
    for (int t = 0; t < threads && other < 0; t++) if (state[t] != AT_BARRIER || site_of[t] != site_of[waiting]) other = t;
    if (other >= 0) {
        memcpy(registers, index_of[waiting], sizeof index_of[waiting]);
        note(DIVERGED, waiting, site_of[waiting]);
        fault.other_thread = other;
        fault.other_site = state[other] == ENDED ? -1 : site_of[other];
        return 0;
    }
    for (int t = 0; t < threads; t++) state[t] = READY;
    moment++;
    return 1;
}

// ----------------------------------------------------------------------------------------------------------- launches

static void thread_main(void) {
    kernel(arguments);
    state[current] = ENDED;
    stop();
}

static uint32_t draw(void) {
    seed ^= seed << 13, seed ^= seed >> 17, seed ^= seed << 5;
    return seed;
}

static void shuffle(int *items, int count) {
    for (int i = count - 1; i > 0; i--) {
        int j = draw() % (i + 1), item = items[i];
        items[i] = items[j], items[j] = item;
    }
}

static void run_block(int how) {
    for (int t = 0; t < threads; t++) {
        void **top = (void **)(stacks + (size_t)(t + 1) * STACK - 64);
        *--top = 0;  // where a return address would be: at its first instruction a function's stack is 8 beyond a multiple of 16
        *--top = (void *)thread_main;
        for (int i = 0; i < 6; i++) *--top = 0;
        stack_of[t] = top;
        state[t] = READY;
        order[t] = how == BACKWARD ? threads - 1 - t : t;
    }
    for (;;) {
        int ran = 0;
        if (how == RANDOM) shuffle(order, threads);
        for (int i = 0; i < threads; i++) {
            if (state[order[i]] != READY) continue;
            resume(order[i]);
            if (fault.kind) return;
            ran = 1;
        }
        if (ran) continue;
        if (release_warps(AT_SHUFFLE, 0) || release_warps(HAS_READ, 0) || release_warps(AT_WARP_BARRIER, 0)) continue;
        release_warps(AT_SHUFFLE, 1);
        if (!fault.kind) release_warps(AT_WARP_BARRIER, 1);
        if (fault.kind || !release_block()) return;
    }
}

// The grid, block by block; returns whether a fault was found.
int gpu_launch(void (*code)(void **), void **values, int32_t *kernel_registers, const int32_t *grid, const int32_t *block, region *memory,
               int memories, int how, uint32_t random) {
    if (!stacks) stacks = mmap(0, (size_t)THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    kernel = code, arguments = values, registers = kernel_registers, regions = memory, region_count = memories, seed = random | 1;
    memset(&fault, 0, sizeof fault);
    memset(region_of_site, 0, sizeof region_of_site);
    threads = block[0] * block[1] * block[2];
    for (int t = 0; t < threads; t++) {
        index_of[t][0] = t % block[0];
        index_of[t][1] = t / block[0] % block[1];
        index_of[t][2] = t / block[0] / block[1];
    }
    for (int i = 0; i < 3; i++) registers[3 + i] = block[i], registers[9 + i] = grid[i];
    launch_start = moment + 1;
    int64_t count = (int64_t)grid[0] * grid[1] * grid[2];
    for (int64_t i = 0; i < count && !fault.kind; i++) {
        int64_t b = how == FORWARD ? i : count - 1 - i;
        registers[6] = b % grid[0], registers[7] = b / grid[0] % grid[1], registers[8] = b / grid[0] / grid[1];
        block_start = ++moment;
        for (int m = 0; m < memories; m++) if (regions[m].kind == SHARED) memset(regions[m].at, 0xFF, regions[m].size);
        run_block(how);
    }
    moment++;
    return fault.kind != NONE;
}

// ------------------------------------------------------------------------------------------------------------- memory

// Zeroed pages, with one before and after that belong to nothing.
char *gpu_allocate(int64_t size) {
    char *at = mmap(0, size + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? 0 : at + PAGE;
}

void gpu_release(char *at, int64_t size) { munmap(at - PAGE, size + 2 * PAGE); }

int64_t gpu_shadow_size(int64_t size) { return (size + 3) / 4 * (int64_t)sizeof(word); }

// The host wrote these words (known 15), or they hold nothing that may be read (0).
void gpu_mark(word *shadow, int64_t words, int known) {
    for (int64_t i = 0; i < words; i++) shadow[i].known = known;
}
