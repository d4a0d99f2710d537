# Write scores.csv: collinearity score and effective sample size of a few genes, fitted by lme4.
#     cd tests/reference && Rscript scores.R
#
# variancePartition's colinearityScore and ESS (Hoffman and Schadt 2016, doi:10.1186/s12859-016-1323-z;
# Liu and Liang 1997, Biometrics 53:937), re-enacted in lme4: cov2cor of vcov, and sums over the
# pseudo-inverse of the n x n correlation matrix. theta and fractions stand beside them, so that no
# optimiser stands between the two.

source("lme4.R")

models <- list(
  c("crossed", "~ Age + Tissue + (1|Individual) + (1|Batch)"),
  c("nested", "~ (1|batch) + (1|cask:batch)"),
  c("one_factor", "~ Age + Dose + (1|g)"),
  c("influenza", "~ Age + Condition + (1|Subject) + (1|Hours)")
)

rows <- list()
for (model in models) {
  read <- function(what) read.csv(
    file.path("samples", paste0(model[1], ".", what, ".csv")),
    row.names = 1, check.names = FALSE, stringsAsFactors = TRUE
  )
  expression <- as.matrix(read("expression"))
  metadata <- read("metadata")
  for (gene in rownames(expression)[1:4]) {
    fit <- tight(as.formula(paste("y", model[2])), cbind(metadata, y = expression[gene, ]), FALSE)
    theta <- getME(fit, "theta")
    names(theta) <- sub("\\.\\(Intercept\\)$", "", names(theta))
    shares <- unlist(fractions(fit))
    C <- cov2cor(as.matrix(vcov(fit)))
    off <- function(C) if (nrow(C) > 1) max(abs(C[lower.tri(C)])) else 0
    # Not from getME(fit, "Zt"): these are the groups themselves.
    size <- function(name, how) {
      group <- getME(fit, "flist")[[name]]
      if (how == "full") {
        correlation <- outer(group, group, "==") * shares[[name]]
        diag(correlation) <- 1
        return(sum(MASS::ginv(correlation)))
      }
      m <- length(group) / nlevels(group)
      length(group) / (1 + shares[[name]] * (m - 1))
    }
    named <- function(prefix, values) setNames(values, paste(prefix, names(values), sep = "."))
    quantities <- c(
      named("theta", theta), named("fraction", shares[names(theta)]),
      score = off(C), score_without_intercept = off(C[-1, -1, drop = FALSE]),
      named("full", sapply(names(theta), size, "full")),
      named("approximate", sapply(names(theta), size, "approximate"))
    )
    rows <- c(rows, lapply(names(quantities), function(q) list(
      data = model[1], formula = model[2], gene = gene, quantity = q, value = quantities[[q]]
    )))
  }
}
write_table(rows, "scores.csv")
