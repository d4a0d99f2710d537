# Write fixed.csv: models without random terms by lm, on data that data.py wrote.
#     cd tests/reference && Rscript fixed.R
#
# variancePartition's definition (Hoffman and Schadt 2016, doi:10.1186/s12859-016-1323-z), re-enacted
# in lm: each term's sum of squares about its mean, over their sum with the residual's. Terms come
# centred from predict(type = "terms").

source("lme4.R")

models <- list(
  c("influenza", "~ Age + Gender + Condition + Hours"),
  c("influenza", "~ Age * Condition + Gender"),
  c("crossed", "~ Age + Tissue + Batch"),
  c("crossed", "~ Tissue * Age"),
  c("crossed", "~ Tissue * Batch"),
  c("one_factor", "~ Age + Dose + g"),
  c("tiny_residual", "~ Age + Individual + Tissue + Batch"),
  c("one_factor", "~ g + Age - 1")
)

rows <- list()
for (model in models) {
  read <- function(what) read.csv(
    file.path("samples", paste0(model[1], ".", what, ".csv")),
    row.names = 1, check.names = FALSE, stringsAsFactors = TRUE
  )
  expression <- as.matrix(read("expression"))
  metadata <- read("metadata")
  for (gene in rownames(expression)[seq_len(min(10, nrow(expression)))]) {
    fit <- lm(as.formula(paste("y", model[2])), cbind(metadata, y = expression[gene, ]))
    stopifnot(!anyNA(coef(fit)))
    squares <- function(v) sum((v - mean(v))^2)
    parts <- c(apply(predict(fit, type = "terms"), 2, squares), Residuals = sum(residuals(fit)^2))
    quantities <- c(
      log_likelihood = as.numeric(logLik(fit)), sigma = sigma(fit),
      setNames(parts / sum(parts), paste("fraction", names(parts), sep = ".")),
      setNames(coef(fit), paste("beta", names(coef(fit)), sep = ".")),
      setNames(sqrt(diag(vcov(fit))), paste("se", names(coef(fit)), sep = "."))
    )
    rows <- c(rows, lapply(names(quantities), function(q) list(
      data = model[1], formula = model[2], gene = gene, quantity = q, value = quantities[[q]]
    )))
  }
}
write_table(rows, "fixed.csv")
