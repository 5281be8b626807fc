#include "train/run_report.hpp"

#include <fmt/format.h>

#include <cmath>
#include <numbers>
#include <utility>

#include "train/stability.hpp"

namespace pararnn::train {

std::string describe_skip(const StepReport& report) {
  // The sign of what is not a number depends on the processor.
  const auto number = [](double x) { return std::isnan(x) ? "nan" : fmt::format("{}", x); };
  return fmt::format("its loss is {} and its gradient's norm {}", number(report.loss),
                     number(report.gradient_norm));
}

void StepMean::add(const StepReport& report) {
  tokens += report.tokens;
  seconds += report.seconds;
  if (report.skipped) return;
  ++losses;
  sum_of_losses += report.loss;
}

RunReport::RunReport(const Options& options)
    : log_every_(options.log_every),
      total_steps_(options.total_steps),
      byte_tokens_(options.byte_tokens),
      progress_(options.show) {
  if (!options.log.empty()) log_.emplace(options.log, options.log_bytes);
}

void RunReport::write(const nlohmann::json& event) {
  if (log_) log_->write(event);
}

void RunReport::start(const nlohmann::json& settings) {
  nlohmann::json event = settings;
  event["event"] = "start";
  write(event);
}

std::string RunReport::describe_loss(double loss) const {
  return byte_tokens_
             ? fmt::format("loss {:.4f}, {:.3f} bits per byte", loss, loss / std::numbers::ln2)
             : fmt::format("loss {:.4f}, perplexity {:.2f}", loss, std::exp(loss));
}

void RunReport::step(const StepReport& report, double run_seconds, double seconds_left) {
  logged_.add(report);
  if (report.step % log_every_ == 0) {
    const StepMean mean = std::exchange(logged_, {});
    write({{"event", "step"},
           {"step", report.step},
           {"loss", mean.loss()},
           {"gradient_norm", report.gradient_norm},
           {"learning_rate", report.learning_rate},
           {"tokens_per_second", std::round(mean.tokens_per_second())},
           {"skipped", report.skipped_steps},
           {"seconds", run_seconds}});
  }
  if (report.skipped) {
    write({{"event", "skip"},
           {"step", report.step},
           {"loss", report.loss},
           {"gradient_norm", report.gradient_norm}});
    progress_.say(fmt::format("step {}: skipped, as {}", report.step, describe_skip(report)));
  }
  if (report.z_score > kSpike) {
    write({{"event", "spike"},
           {"step", report.step},
           {"loss", report.loss},
           {"z_score", report.z_score}});
    progress_.say(fmt::format("step {}: a spike, {}, {:.1f} standard deviations above those before",
                              report.step, describe_loss(report.loss), report.z_score));
  }
  shown_.add(report);
  if (!progress_.due()) return;
  const StepMean mean = std::exchange(shown_, {});
  const std::string total = total_steps_ > 0 ? fmt::format("/{}", total_steps_) : "";
  const std::string skipped =
      report.skipped_steps > 0 ? fmt::format(", {} skipped", report.skipped_steps) : "";
  progress_.update(fmt::format(
      "step {}{}: {}{}, {} tokens/s, {} left", report.step, total, describe_loss(mean.loss()),
      skipped, format_count(mean.tokens_per_second()), format_duration(seconds_left)));
}

void RunReport::warning(int64_t step, const std::string& sentence) {
  if (!warnings_.insert(sentence).second) return;
  write({{"event", "warning"}, {"step", step}, {"sentence", sentence}});
  progress_.say("warning: " + sentence);
}

void RunReport::validation(int64_t step, const Score& score) {
  write({{"event", "validation"},
         {"step", step},
         {"loss", score.loss()},
         {"bits_per_byte", score.bits_per_byte()},
         {"perplexity", score.perplexity()},
         {"tokens", score.tokens},
         {"seconds", score.seconds}});
  const std::string perplexity =
      byte_tokens_ ? "" : fmt::format(", perplexity {:.2f}", score.perplexity());
  progress_.say(
      fmt::format("step {}: validation {:.4f} bits per byte{} ({} tokens of held-out text)", step,
                  score.bits_per_byte(), perplexity, score.tokens));
}

void RunReport::profile(int64_t step, const Profile& profile) {
  nlohmann::json event = profile.json();
  event["event"] = "profile";
  event["step"] = step;
  write(event);
  progress_.say(profile.table());
}

}  // namespace pararnn::train
