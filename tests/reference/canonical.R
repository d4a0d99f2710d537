# Write canonical.csv: canonical correlations of pairs of variables by R's own cancor.
#     cd tests/reference && Rscript canonical.R
#
# variancePartition's canCorPairs (Hoffman and Schadt 2016, doi:10.1186/s12859-016-1323-z), its call
# sequence re-enacted in model.matrix and cancor, rows with NA dropped by pair; the value of a pair is
# the root mean square of its correlations. Random terms stand here as what they group by.

source("lme4.R")
suppressPackageStartupMessages(library(splines))

# data, formula for jaxvp, the same for model.matrix, variables that R must take for factors
models <- list(
  list("crossed", "~ Age + (1|Individual) + (1|Tissue) + (1|Batch)",
       ~ Age + Individual + Tissue + Batch, NULL),
  list("influenza", "~ Age + (1|Subject) + (1|Hours) + (1|Gender) + (1|Condition)",
       ~ Age + Subject + Hours + Gender + Condition, "Hours"),
  list("influenza", "~ Age * Condition + Gender:Condition + Gender",
       ~ Age * Condition + Gender:Condition + Gender, NULL),
  list("influenza", "~ Age + Hours + Hours:Condition + (1|Subject)",
       ~ Age + Hours + Hours:Condition + Subject, NULL),
  list("crossed", "~ Tissue * Batch + Age:Tissue:Batch", ~ Tissue * Batch + Age:Tissue:Batch, NULL),
  list("crossed", "~ Age + (1|Tissue:Batch)", ~ Age + Tissue:Batch, NULL),
  list("crossed", "~ poly(Age, 3) + Tissue + (1|Batch)", ~ poly(Age, 3) + Tissue + Batch, NULL),
  list("nested", "~ (1|batch/cask)", ~ batch / cask, NULL),
  list("one_factor", "~ Age + Dose + I(Age + Dose) + g", ~ Age + Dose + I(Age + Dose) + g, NULL),
  list("missing", "~ Age + Dose + Tissue + Site + (1|Individual)",
       ~ Age + Dose + Tissue + Site + Individual, NULL),
  list("missing", "~ Age * Tissue + Site", ~ Age * Tissue + Site, NULL)
)

rows <- list()
for (model in models) {
  data <- read.csv(
    file.path("samples", paste0(model[[1]], ".metadata.csv")), row.names = 1, check.names = FALSE,
    stringsAsFactors = TRUE, na.strings = ""
  )
  for (name in model[[4]]) data[[name]] <- factor(data[[name]])
  X <- model.matrix(model[[3]], model.frame(model[[3]], data, na.action = na.pass))
  labels <- attr(terms(model[[3]]), "term.labels")
  columns <- lapply(seq_along(labels), function(i) X[, attr(X, "assign") == i, drop = FALSE])
  for (pair in combn(length(labels), 2, simplify = FALSE)) {
    keep <- complete.cases(columns[[pair[1]]], columns[[pair[2]]])
    rho <- cancor(columns[[pair[1]]][keep, , drop = FALSE], columns[[pair[2]]][keep, , drop = FALSE])$cor
    rows <- c(rows, list(list(
      data = model[[1]], formula = paste0('"', model[[2]], '"'),
      one = paste0('"', labels[pair[1]], '"'), other = paste0('"', labels[pair[2]], '"'),
      samples = sum(keep), count = length(rho), value = sqrt(mean(rho^2))
    )))
  }
}
write_table(rows, "canonical.csv")
