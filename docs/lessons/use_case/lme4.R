# Lesson 4's three genes by lme4, and variancePartition's fractions from its estimates.
#
#     Rscript lme4.R     # reads genes.csv, writes lme4.csv and versions.txt (Debian: r-cran-lme4)

suppressPackageStartupMessages(library(lme4))

data <- read.csv("genes.csv")
formula <- ~ Age + Height + (1 | Individual) + (1 | Tissue) + (1 | Batch)
# Tighter than the defaults: the comparison is to show the models, not the optimisers.
control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5))
starts <- list(c(1, 1, 1), c(0.1, 0.1, 0.1), c(2, 2, 0.05))

# Random terms: their variance. Fixed ones: var(x b), rescaled to add up to var(X b). Then shares.
# (calcVarPart of variancePartition, Hoffman and Schadt 2016, re-enacted.)
fractions <- function(fit) {
  population <- function(v) mean((v - mean(v))^2)
  random <- sapply(VarCorr(fit), function(v) v[1, 1])
  X <- getME(fit, "X")
  fixed <- sapply(colnames(X)[-1], function(name) population(X[, name] * fixef(fit)[name]))
  fixed <- fixed / sum(fixed) * population(X %*% fixef(fit))
  all <- c(random, fixed, Residuals = sigma(fit)^2)
  all / sum(all)
}

rows <- lapply(grep("^gene_", names(data), value = TRUE), function(gene) {
  data$y <- data[[gene]]
  fits <- lapply(starts, function(start) suppressMessages(
    lmer(update(formula, y ~ .), data, REML = FALSE, start = start, control = control)))
  best <- fits[[which.max(sapply(fits, logLik))]]
  data.frame(gene = gene, t(fractions(best)), log_likelihood = as.numeric(logLik(best)))
})
table <- do.call(rbind, rows)
table[-1] <- lapply(table[-1], function(column) sprintf("%.10g", column))
write.csv(table, "lme4.csv", row.names = FALSE, quote = FALSE)
writeLines(c(R.version.string, paste("lme4", packageVersion("lme4"))), "versions.txt")
