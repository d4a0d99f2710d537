# Write weights.csv: tight lme4 and lm fits with weights of each gene's own, which it draws
# (samples/<design>.weights.csv, genes x samples), ML and REML.
#     cd tests/reference && Rscript weights.R
#
# Weights are divided by their mean over the observations that count; those of weight zero are
# dropped by hand (lme4 itself gives -Inf for them). Fractions: fixed columns by their weighted
# variance, otherwise as in lme4.R and fixed.R.

source("lme4.R")
set.seed(5)

weighted_variance <- function(v, w) sum(w * (v - weighted.mean(v, w))^2) / sum(w)

shares <- function(fit, w) {
  random <- sapply(VarCorr(fit), function(v) v[1, 1])
  X <- getME(fit, "X")
  columns <- colnames(X)[-1]
  part <- vapply(columns, function(name) weighted_variance(X[, name] * fixef(fit)[name], w), 0)
  if (length(part) && sum(part) > 0) {
    part <- part / sum(part) * weighted_variance(X %*% fixef(fit), w)
  }
  total <- c(random, part, Residuals = sigma(fit)^2)
  total / sum(total)
}

rows <- list()
for (model in list(
  c("crossed", "~ Age + (1|Batch) + (1|Individual) + (1|Tissue)"),
  c("pairs", "~ Age + (1|Batch) + (1|Individual)"),
  c("one_factor", "~ Age + Dose + (1|g)")
)) {
  path <- function(what) file.path("samples", paste0(model[1], ".", what, ".csv"))
  expression <- as.matrix(read.csv(path("expression"), row.names = 1, check.names = FALSE))
  expression <- expression[1:4, ]
  metadata <- read.csv(path("metadata"), row.names = 1, stringsAsFactors = TRUE)
  weights <- expression
  weights[] <- signif(rgamma(length(weights), 3), 6)
  # In the last gene observations are lost, and with them whole groups.
  group <- metadata[[if (model[1] == "one_factor") "g" else "Individual"]]
  weights[4, group == levels(group)[2] | runif(ncol(weights)) < 0.1] <- 0
  write.csv(weights, path("weights"), quote = FALSE)
  for (gene in rownames(expression)) {
    keep <- weights[gene, ] > 0
    data <- droplevels(cbind(metadata, y = expression[gene, ])[keep, ])
    data$w <- weights[gene, keep] / mean(weights[gene, keep])
    for (reml in c(FALSE, TRUE)) {
      formula <- as.formula(paste("y", model[2]))
      k <- length(lFormula(formula, data, control = control)$reTrms$cnms)
      fits <- lapply(starts(k), function(theta) suppressWarnings(suppressMessages(
        lmer(formula, data, REML = reml, weights = w, start = theta, control = control)
      )))
      fit <- fits[[which.max(sapply(fits, logLik))]]
      found <- numbers(fit)
      found <- found[!grepl("^fraction", names(found))]
      part <- shares(fit, data$w)
      rows <- c(rows, list(c(
        list(data = model[1], formula = model[2], gene = gene, reml = as.character(reml)),
        as.list(found), setNames(as.list(part), paste("fraction", names(part), sep = "."))
      )))
    }
  }
}
write_table(rows, "weights.csv")
