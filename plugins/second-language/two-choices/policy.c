/*
 * `two-choices`: the power of two random choices (Mitzenmacher, 2001).
 *
 * Of all machines that can serve, two are drawn by the job's seed, and the less busy of them is first. When many nodes
 * decide at once with reports that are a little old, they do not all run to the one machine that looked idle, and the
 * fullest machine still stays nearly as empty as if each had known all. The other one is second, and then the rest by
 * how busy they are.
 *
 * Busy is jobs per slot, as the machine says, or our own jobs there where they are more.
 */
#include "bindings/routing_policy.h"
#include <stdlib.h>

#define NAME "two-choices"
#define VERSION "0.1.0"
#define SUMMARY "Draws two machines and asks the less busy one first, so that nodes with old reports do not all ask the same."
#define LICENCE "Apache-2.0"

/* After so many failures in a row a machine that is paused is not asked. */
#define HOPELESS 4u

typedef exports_potluck_policy_routing_candidate_t candidate_t;

typedef struct {
  /* Its context surely holds the job, and it is not paused: 0; otherwise 1 to 3. */
  uint32_t class;
  uint32_t index;
  uint64_t jobs;
  uint64_t slots;
  uint64_t turn;
} place_t;

void exports_potluck_policy_about_describe(exports_potluck_policy_about_description_t *ret) {
  routing_policy_string_dup(&ret->name, NAME);
  routing_policy_string_dup(&ret->version, VERSION);
  routing_policy_string_dup(&ret->summary, SUMMARY);
  routing_policy_string_dup(&ret->licence, LICENCE);
}

static uint64_t add(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

/* The finaliser of SplitMix64 (Steele, Lea and Flood, 2014). */
static uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

static bool can_serve(const exports_potluck_policy_routing_job_t *job, const candidate_t *it) {
  if (it->health == POTLUCK_POLICY_TYPES_HEALTH_PAUSED && it->failures >= HOPELESS) return false;
  uint64_t answer = job->answer_room == 0 ? 1 : job->answer_room;
  return it->context == 0 || add(job->prompt_least, answer) <= it->context;
}

static place_t place(const exports_potluck_policy_routing_job_t *job, const candidate_t *it, uint32_t index,
                     uint64_t seed) {
  uint64_t told = (uint64_t)it->running + it->queued;
  uint64_t jobs = told > it->in_flight ? told : it->in_flight;
  bool may_not_fit = it->context == 0 || add(job->prompt_most, job->answer_room) > it->context;
  bool paused = it->health == POTLUCK_POLICY_TYPES_HEALTH_PAUSED;
  place_t place = {
      .class = (may_not_fit ? 2u : 0u) + (paused ? 1u : 0u),
      .index = index,
      /* Below 2^32, so that products with slots do not overflow. */
      .jobs = jobs > UINT32_MAX ? UINT32_MAX : jobs,
      .slots = it->slots == 0 ? 1 : it->slots,
      .turn = mix(mix(it->machine) ^ seed),
  };
  return place;
}

/* Whether `a` is less busy than `b`, or as busy and its turn is earlier. */
static bool before(const place_t *a, const place_t *b) {
  if (a->class != b->class) return a->class < b->class;
  uint64_t left = a->jobs * b->slots, right = b->jobs * a->slots;
  if (left != right) return left < right;
  if (a->turn != b->turn) return a->turn < b->turn;
  return a->index < b->index;
}

/* Shell's sort, with Ciura's gaps. */
static void sort(place_t *places, size_t count) {
  static const size_t gaps[] = {701, 301, 132, 57, 23, 10, 4, 1};
  for (size_t g = 0; g < sizeof gaps / sizeof gaps[0]; g++) {
    for (size_t i = gaps[g]; i < count; i++) {
      place_t moving = places[i];
      size_t j = i;
      for (; j >= gaps[g] && before(&moving, &places[j - gaps[g]]); j -= gaps[g]) places[j] = places[j - gaps[g]];
      places[j] = moving;
    }
  }
}

/* Brings the place at `from` to `to`, and moves those between by one. */
static void bring(place_t *places, size_t from, size_t to) {
  place_t moving = places[from];
  for (; from > to; from--) places[from] = places[from - 1];
  places[to] = moving;
}

bool exports_potluck_policy_routing_rank(exports_potluck_policy_routing_job_t *job,
                                         exports_potluck_policy_routing_list_candidate_t *candidates, uint64_t now,
                                         uint64_t seed, exports_potluck_policy_routing_ranking_t *ret,
                                         routing_policy_string_t *err) {
  (void)now;
  (void)err;
  /* Room for one at least: nothing is no pointer. */
  place_t *places = malloc((candidates->len + 1) * sizeof(place_t));
  ret->order.ptr = malloc((candidates->len + 1) * sizeof(exports_potluck_policy_routing_choice_t));
  if (places == NULL || ret->order.ptr == NULL) abort();
  size_t count = 0, best = 0;
  for (size_t i = 0; i < candidates->len; i++) {
    if (can_serve(job, &candidates->ptr[i])) places[count++] = place(job, &candidates->ptr[i], (uint32_t)i, seed);
  }
  sort(places, count);
  /* Two are drawn of those in the best class. */
  while (best < count && places[best].class == places[0].class) best++;
  if (best > 2) {
    size_t one = (size_t)(mix(seed) % best), other = (size_t)(mix(seed + 1) % (best - 1));
    if (other >= one) other++;
    size_t less = one < other ? one : other, more = one < other ? other : one;
    bring(places, more, 0);
    /* What stood before `more` has moved by one. */
    bring(places, less + 1, 0);
  }
  for (size_t i = 0; i < count; i++) {
    ret->order.ptr[i].candidate = places[i].index;
    ret->order.ptr[i].score = (int64_t)(count - i);
  }
  ret->order.len = count;
  free(places);
  /* A list without elements is not freed after the call. */
  if (count == 0) {
    free(ret->order.ptr);
    ret->order.ptr = NULL;
  }
  routing_policy_string_dup(&ret->note, count == 0 ? "none can serve this job" : "the less busy of two that were drawn");
  exports_potluck_policy_routing_job_free(job);
  exports_potluck_policy_routing_list_candidate_free(candidates);
  return true;
}
