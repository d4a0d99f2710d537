# What slopes.R and slopes_weights.R share; source lme4.R first.

# From several covariances, with correlations of several signs; the best is kept.
tight_slopes <- function(formula, data, reml, weights = rep(1, nrow(data))) {
  parsed <- lFormula(formula, data, control = control)
  diagonal <- parsed$reTrms$lower == 0
  starts <- list()
  for (size in c(1, 0.1, 4)) for (other in c(0, 0.5, -0.5)) {
    starts <- c(starts, list(size * ifelse(diagonal, 1, other)))
  }
  fits <- lapply(starts, function(theta) suppressWarnings(suppressMessages(
    do.call(lmer, list(
      formula, data, REML = reml, start = theta, control = control, weights = weights
    ))
  )))
  fits[[which.max(sapply(fits, logLik))]]
}

quantities <- function(fit) {
  named <- function(prefix, values) setNames(values, paste(prefix, names(values), sep = "."))
  clean <- function(values) setNames(values, sub("\\(Intercept\\)", "Intercept", names(values)))
  table <- as.data.frame(VarCorr(fit))
  table <- table[table$grp != "Residual", ]
  table$grp <- sub("\\.[0-9]+$", "", table$grp) # the parts of a term with ||
  entry <- paste(table$grp, table$var1, ifelse(is.na(table$var2), table$var1, table$var2), sep = ".")
  theta <- getME(fit, "theta")
  c(
    log_likelihood = as.numeric(logLik(fit)), sigma = sigma(fit),
    named("theta", theta),
    named("covariance", setNames(table$vcov, entry)),
    named("beta", clean(fixef(fit))),
    named("se", clean(sqrt(diag(as.matrix(vcov(fit, use.hessian = FALSE))))))
  )
}
