# lme4 on a share of the genes: one process of `benchmarks.peers`, which starts it and speaks JSON
# with it, one line each: the spec in, "ready" out, "go" in, the result out; "again" out in place of
# "ready" if another process should be started in its place (below).
#
#   mode "lmer"      lmer for every gene
#   mode "lme4"      lmer once, then refit for every gene: lme4's way through many responses
#   mode "sequence"  variancePartition's call sequence, re-enacted in lme4: one fit to start from (of
#                    normal quantiles: lmer and a refit), then for every gene a refit from it with
#                    weights, and a second refit from where that stopped
#
# The control is variancePartition's: no numerical derivatives after the fit, no message about
# singular fits.
#
# "again": the order of elimination, and with it the rounding, differs from process to process. The
# fit to start from can end with a component that is not zero but 1e-8, and then the optimizer's
# first step in it is as short: it stops after a fifth of the evaluations, with genes thousands of
# log-likelihood units short. The time of that would not be a time of fits. Where every process is
# like that the last one goes on, and the table counts what it leaves short.

suppressPackageStartupMessages({
  library(lme4)
  library(jsonlite)
})

input <- file("stdin")
open(input)
spec <- fromJSON(readLines(input, 1))
began <- proc.time()[["elapsed"]]

study <- fromJSON(file.path(spec$folder, "study.json"))
data <- read.csv(file.path(spec$folder, "metadata.csv"), stringsAsFactors = FALSE)
genes <- matrix(
  readBin(spec$values, "double", spec$genes * study$samples, size = 8),
  nrow = study$samples
)
# A grouping factor may be written in numbers.
formula <- as.formula(paste("y", study$formula))
for (bar in findbars(formula)) {
  for (name in all.vars(bar[[3]])) data[[name]] <- factor(data[[name]])
}
control <- lmerControl(
  calc.derivs = FALSE,
  check.rankX = "stop.deficient",
  check.conv.singular = .makeCC("ignore", tol = 1e-4)
)
weights <- rep(1, study$samples)

if (spec$mode == "sequence") {
  data$y <- qnorm(seq_len(study$samples) / (study$samples + 1))
  start <- lmer(formula, data, REML = FALSE, control = control, weights = weights)
  start <- refit(start, control = control)
  theta <- getME(start, "theta")
  if (!isTRUE(spec$last) && any(theta > 0 & theta < 1e-6)) {
    cat("again\n")
    quit()
  }
} else {
  data$y <- genes[, 1]
  start <- lmer(formula, data, REML = FALSE, control = control)
}
fit_gene <- switch(spec$mode,
  lmer = function(y) {
    data$y <- y
    lmer(formula, data, REML = FALSE, control = control)
  },
  lme4 = function(y) refit(start, newresp = y, control = control),
  sequence = function(y) {
    fit <- refit(start, newresp = y, newweights = weights, control = control)
    refit(fit, control = control)
  }
)

ready <- proc.time()[["elapsed"]] - began
cat("ready\n")
invisible(readLines(input, 1))

found <- rep(NA_real_, spec$genes)
began <- Sys.time()
for (i in seq_len(spec$genes)) {
  found[i] <- tryCatch(
    as.numeric(logLik(suppressWarnings(fit_gene(genes[, i])), REML = FALSE)),
    error = function(e) NA_real_
  )
}
seconds <- as.numeric(difftime(Sys.time(), began, units = "secs"))

version <- paste0("lme4 ", packageVersion("lme4"), ", R ", getRversion())
cat(toJSON(list(
  version = unbox(version), start = unbox(ready), seconds = unbox(seconds),
  log_likelihood = sprintf("%.17g", found) # as text: toJSON itself stops at 15 digits
), digits = NA), "\n")
