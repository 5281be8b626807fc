#include "kernels/cuda/plan_choice.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace pararnn {
namespace {

/// The first trial may wait for its kernels to be compiled.
constexpr int kTrials = 3;
/// A plan so much slower than the best is not tried again, once its kernels are known to be there.
constexpr double kHopeless = 1.25;
/// Plans that take about as long are equally good: the planner's order decides.
constexpr double kAbout = 1.03;
/// Plans that the planner finds best with its own burn-in.
constexpr size_t kOwnPlans = 3;
/// A cell that forgets its start to 1e-7 in the planner's burn-in forgets it to the tolerance,
/// 1e-6, in about so much of it.
constexpr double kShorter = 0.75;
/// Of each other way the cheapest, and the one of the longest chunks that costs up to so much more:
/// the longer a chunk, the less there is to correct. The run in order first: it costs the same
/// whatever the cell remembers.
constexpr double kForLongerChunks = 1.5;
constexpr std::pair<const char*, int> kOthers[] = {
    {"sequential", -1}, {"auto", 256}, {"auto", 1024}, {"newton", 64}, {"newton", 192}};
/// A share of corrected columns that is none to speak of; one column costs as long as all do, but
/// need not come again. More than kManyCorrected is a change to be looked at at once.
constexpr double kFewCorrected = 2e-5, kManyCorrected = 1e-2;
/// The least time of a step's dependent operations, in milliseconds, of the simplest cell.
constexpr double kLeastStepMilliseconds = 4e-5;
/// A settled choice is timed every so many calls, and the others again after so many.
constexpr long kCallsBetweenTimes = 32, kCallsBetweenTrials = 2048, kCallsBetweenChanges = 256;
constexpr double kClearlySlower = 1.5;
constexpr int kTimesSlower = 3;

constexpr double kUnknown = std::numeric_limits<double>::infinity();

}  // namespace

PlanChoice::PlanChoice(const PlanRequest& request) {
  const auto add = [&](const Plan& plan, Origin origin) {
    const auto same = [&](const Candidate& c) { return c.plan == plan; };
    if (std::ranges::any_of(candidates_, same)) return;
    const int64_t steps = (plan.way == Way::kNewton ? 2 : 1) * plan.chunk + plan.burn_in;
    candidates_.push_back({plan, origin, kLeastStepMilliseconds * double(steps), kUnknown});
  };
  std::vector<Plan> own = candidate_plans(request);
  own.resize(std::min(own.size(), kOwnPlans));
  for (Plan plan : own) {
    add(plan, Origin::kPlanner);
    if (plan.way == Way::kSequential) continue;
    plan.burn_in = detail::whole_checkpoints(std::int64_t(kShorter * double(plan.burn_in)));
    add(plan, Origin::kShorter);
  }
  // Columns enough for the whole machine are run in order in every regime.
  if (candidates_[0].plan.way == Way::kSequential) {
    candidates_.resize(1);
    return;
  }
  PlanRequest other = request;
  for (const auto& [way, burn_in] : kOthers) {
    other.way = way;
    other.burn_in = burn_in;
    const std::vector<Plan> plans = candidate_plans(other);
    Plan longest = plans[0];
    for (const Plan& plan : plans) {
      const bool affordable =
          plan_cost(other, plan) <= kForLongerChunks * plan_cost(other, plans[0]);
      if (affordable && plan.chunk > longest.chunk) longest = plan;
    }
    add(plans[0], Origin::kOther);
    add(longest, Origin::kOther);
  }
}

size_t PlanChoice::fastest() const {
  const double least =
      std::ranges::min_element(candidates_, {}, &Candidate::milliseconds)->milliseconds;
  const auto about_least = [&](const Candidate& c) { return c.milliseconds <= kAbout * least; };
  return size_t(std::ranges::find_if(candidates_, about_least) - candidates_.begin());
}

const Plan& PlanChoice::best() const { return candidates_[exploring_ ? fastest() : running_].plan; }

bool PlanChoice::wants_time(long calls) {
  calls_ += calls;
  return exploring() || (candidates_.size() > 1 && calls_ - timed_at_ >= kCallsBetweenTimes);
}

void PlanChoice::record(double milliseconds, double share_corrected) {
  Candidate& candidate = candidates_[running_];
  const bool few = share_corrected <= kFewCorrected;
  if (exploring_) {
    if (running_ == 0) forgets_ = few;
    ++candidate.trials;
    if (candidate.origin == Origin::kShorter && !few) {
      candidate.milliseconds = kUnknown;
      candidate.trials = kTrials;
    } else {
      candidate.milliseconds = std::min(candidate.milliseconds, milliseconds);
    }
    if (candidate.has_run &&
        candidate.milliseconds > kHopeless * candidates_[fastest()].milliseconds)
      candidate.trials = kTrials;
    candidate.has_run = true;
    choose_next();
    return;
  }
  timed_at_ = calls_;
  slower_ = milliseconds > kClearlySlower * candidate.milliseconds ? slower_ + 1 : 0;
  const bool changed = candidate.origin != Origin::kOther && forgets_ && !few &&
                       (share_corrected > kManyCorrected || calls_ >= kCallsBetweenChanges);
  const bool old = !forgets_ && calls_ >= kCallsBetweenTrials;
  if (changed || old || slower_ >= kTimesSlower) explore();
}

void PlanChoice::explore() {
  for (Candidate& candidate : candidates_) {
    candidate.milliseconds = kUnknown;
    candidate.trials = 0;
  }
  exploring_ = true;
  slower_ = 0;
  running_ = 0;
}

bool PlanChoice::worth_a_trial(size_t i) const {
  const Candidate& candidate = candidates_[i];
  if (candidate.trials >= kTrials) return false;
  switch (candidate.origin) {
    case Origin::kPlanner:  // whose burn-in is enough for all of its plans, or for none
      return forgets_ || i == 0 || candidate.plan.way == Way::kSequential;
    case Origin::kShorter:  // of the fastest plan
      return forgets_ && (fastest() == i - 1 || fastest() == i);
    default:
      return !forgets_ && candidate.least_milliseconds < candidates_[fastest()].milliseconds;
  }
}

void PlanChoice::choose_next() {
  // The shorter burn-ins last, when the planner's plans are known.
  for (const bool shorter : {false, true}) {
    for (size_t i = 0; i < candidates_.size(); ++i) {
      if ((candidates_[i].origin == Origin::kShorter) == shorter && worth_a_trial(i)) {
        running_ = i;
        return;
      }
    }
  }
  running_ = fastest();
  exploring_ = false;
  calls_ = timed_at_ = 0;
}

}  // namespace pararnn
