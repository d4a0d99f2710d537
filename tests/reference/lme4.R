# What the scripts here share: a tight lme4 fit from several starts, and its numbers as one row.
# lme4 is GPL-2+; these scripts call it, nothing of it is copied.

suppressPackageStartupMessages(library(lme4))

starts <- function(k) {
  points <- list(rep(1, k), rep(0.1, k), rep(5, k))
  if (k > 1) for (i in seq_len(k)) {
    points <- c(points, list(replace(rep(0.05, k), i, 3)), list(replace(rep(1, k), i, 0.02)))
  }
  points
}

control <- lmerControl(
  optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5), calc.derivs = FALSE
)

# The best of all starts by (restricted) log-likelihood.
tight <- function(formula, data, reml) {
  k <- length(lFormula(formula, data, control = control)$reTrms$cnms)
  fits <- lapply(starts(k), function(theta) suppressWarnings(suppressMessages(
    lmer(formula, data, REML = reml, start = theta, control = control)
  )))
  fits[[which.max(sapply(fits, logLik))]]
}

# variancePartition's fractions (Hoffman and Schadt 2016, doi:10.1186/s12859-016-1323-z), re-enacted:
# random terms their variance, fixed columns var(x b) rescaled to add up to var(X b), the residual.
fractions <- function(fit) {
  random <- sapply(VarCorr(fit), function(v) v[1, 1])
  X <- getME(fit, "X")
  population <- function(v) mean((v - mean(v))^2)
  names <- colnames(X)[-1]
  part <- vapply(names, function(name) population(X[, name] * fixef(fit)[name]), numeric(1))
  if (length(part) && sum(part) > 0) part <- part / sum(part) * population(X %*% fixef(fit))
  total <- c(random, part, Residuals = sigma(fit)^2)
  total / sum(total)
}

# One named row of everything; names follow the components: theta.a, fraction.a, ...
numbers <- function(fit) {
  named <- function(prefix, values) setNames(values, paste(prefix, names(values), sep = "."))
  clean <- function(values) setNames(values, sub("\\(Intercept\\)", "Intercept", names(values)))
  theta <- getME(fit, "theta")
  names(theta) <- sub("\\.\\(Intercept\\)$", "", names(theta))
  variance <- sapply(VarCorr(fit), function(v) v[1, 1])
  c(
    log_likelihood = as.numeric(logLik(fit)), sigma = sigma(fit),
    named("theta", theta), named("variance", variance),
    named("beta", clean(fixef(fit))),
    named("se", clean(sqrt(diag(as.matrix(vcov(fit, use.hessian = FALSE)))))),
    named("fraction", unlist(fractions(fit)))
  )
}

write_table <- function(rows, path) {
  columns <- unique(unlist(lapply(rows, names)))
  text <- sapply(rows, function(row) {
    cells <- ifelse(
      columns %in% names(row),
      sapply(row[columns], function(v) if (is.null(v) || is.na(v)) ""
        else if (is.numeric(v)) sprintf("%.15g", v) else as.character(v)), "")
    paste(cells, collapse = ",")
  })
  writeLines(c(paste(columns, collapse = ","), text), path)
  message(path, ": ", length(rows), " rows")
}

# Beside every table: what made it.
write_versions <- function(path) {
  packages <- c("lme4", "Matrix", "minqa", "nloptr")
  lines <- c(
    R.version.string,
    sapply(packages, function(p) paste(p, as.character(packageVersion(p)))),
    paste("BLAS", basename(extSoftVersion()["BLAS"])), paste("platform", R.version$platform)
  )
  writeLines(lines, path)
}
