# Write predictions.csv: random effects with conditional variances, fitted values, residuals and
# predictions for other samples by lme4, with the theta, sigma and coefficients they belong to.
#     cd tests/reference && Rscript predictions.R
#
# The other samples are rows 3, 1 and 7 of the metadata, the numbers five higher, and in the last one
# levels that no sample of the fit has. Weights, where there are some: 0.5, 1, 1.5, 2, 0.5, ... by row.

source("lme4.R")

models <- list(
  list("crossed ML", "crossed", "gene_4", y ~ Age + (1|Batch) + (1|Individual) + (1|Tissue), FALSE),
  list("crossed REML", "crossed", "gene_2", y ~ Age + (1|Batch) + (1|Individual) + (1|Tissue), TRUE),
  list("crossed weighted", "crossed", "gene_4", y ~ Age + (1|Batch) + (1|Individual) + (1|Tissue), TRUE),
  list("crossed poly", "crossed", "gene_4", y ~ poly(Age, 2) + Tissue + (1|Individual), FALSE),
  list("nested ML", "nested", "gene_5", y ~ (1|batch) + (1|cask:batch), FALSE),
  list("sleepstudy", NULL, NULL, y ~ Days + (Days|Subject), FALSE)
)

rows <- list()
for (model in models) {
  if (is.null(model[[2]])) {
    data <- data.frame(y = sleepstudy$Reaction, sleepstudy[c("Days", "Subject")])
    rownames(data) <- paste0("row_", seq_len(nrow(data)) - 1)
  } else {
    path <- function(what) file.path("samples", paste0(model[[2]], ".", what, ".csv"))
    y <- as.matrix(read.csv(path("expression"), row.names = 1, check.names = FALSE))[model[[3]], ]
    data <- cbind(read.csv(path("metadata"), row.names = 1, stringsAsFactors = TRUE), y = y)
  }
  weighted <- grepl("weighted", model[[1]])
  # In the formula's environment, where lmer looks.
  formula <- model[[4]]
  if (weighted) data$w <- rep_len(c(0.5, 1, 1.5, 2), nrow(data))
  k <- length(lFormula(formula, data, control = control)$reTrms$theta)
  fits <- lapply(if (k > 2) list(c(1, 0, 1), c(0.5, 0.2, 0.3)) else starts(k), function(theta) {
    arguments <- list(formula, data, REML = model[[5]], start = theta, control = control)
    if (weighted) arguments$weights <- data$w
    if (length(theta) == k) suppressMessages(do.call(lmer, arguments))
  })
  fit <- fits[[which.max(sapply(fits, logLik))]]

  add <- function(quantity, name, level, values) {
    rows <<- c(rows, Map(function(name, level, value) list(
      case = model[[1]], quantity = quantity, name = name, level = level, value = value
    ), gsub(",", "", name), level, unname(values)))
  }
  add("theta", names(getME(fit, "theta")), "", getME(fit, "theta"))
  add("sigma", "", "", sigma(fit))
  add("beta", names(fixef(fit)), "", fixef(fit))
  effects <- as.data.frame(ranef(fit, condVar = TRUE))
  term <- paste(effects$grpvar, effects$term, sep = ".")
  add("effect", term, as.character(effects$grp), effects$condval)
  add("variance", term, as.character(effects$grp), effects$condsd^2)
  add("fitted", "", rownames(data), fitted(fit))
  if (weighted) {
    add("response", "", rownames(data), residuals(fit, type = "response"))
    add("pearson", "", rownames(data), residuals(fit, type = "pearson"))
    add("scaled", "", rownames(data), residuals(fit, type = "pearson", scaled = TRUE))
  }
  new <- data[c(3, 1, 7), ]
  for (name in intersect(c("Age", "Days"), names(new))) new[[name]] <- new[[name]] + 5
  for (name in intersect(c("Batch", "Individual", "batch", "Subject"), names(new))) {
    levels(new[[name]]) <- c(levels(new[[name]]), "new")
    new[3, name] <- "new"
  }
  sample <- c("a", "b", "c")
  add("predict", "", sample, predict(fit, new, allow.new.levels = TRUE))
  add("predict", "fixed", sample, predict(fit, new, re.form = NA))
  for (name in names(ranef(fit))) {
    part <- if (name == "Subject") ~ (Days|Subject) else as.formula(paste0("~ (1|", name, ")"))
    add("predict", name, sample,
        predict(fit, new, re.form = part, random.only = TRUE, allow.new.levels = TRUE))
  }
}
write_table(rows, "predictions.csv")
