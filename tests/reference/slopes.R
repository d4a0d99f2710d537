# Tight lme4 fits with random slopes: slopes/lme4.csv, one quantity a row.
#     cd tests/reference && python slopes_data.py && Rscript slopes.R

source("lme4.R")

# From several covariances, with correlations of several signs; the best is kept.
tight_slopes <- function(formula, data, reml) {
  parsed <- lFormula(formula, data, control = control)
  diagonal <- parsed$reTrms$lower == 0
  starts <- list()
  for (size in c(1, 0.1, 4)) for (other in c(0, 0.5, -0.5)) {
    starts <- c(starts, list(size * ifelse(diagonal, 1, other)))
  }
  fits <- lapply(starts, function(theta) suppressWarnings(suppressMessages(
    lmer(formula, data, REML = reml, start = theta, control = control)
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

rows <- list()
add <- function(name, formula, gene, data, response) {
  for (reml in c(FALSE, TRUE)) {
    found <- quantities(tight_slopes(as.formula(paste(response, formula)), data, reml))
    for (quantity in names(found)) {
      rows <<- c(rows, list(list(
        data = name, formula = formula, gene = gene, reml = as.character(reml),
        quantity = quantity, value = found[[quantity]]
      )))
    }
  }
}

sleepstudy$Subject <- factor(sleepstudy$Subject)
for (formula in c("~ Days + (Days|Subject)", "~ Days + (Days||Subject)")) {
  add("sleepstudy", formula, "Reaction", sleepstudy, "Reaction")
}
designs <- read.csv(file.path("slopes", "designs.csv"), stringsAsFactors = FALSE)
for (i in seq_len(nrow(designs))) {
  name <- designs$data[i]
  data <- read.csv(file.path("slopes", paste0(name, ".metadata.csv")), stringsAsFactors = TRUE)
  genes <- read.csv(file.path("slopes", paste0(name, ".expression.csv")), row.names = 1)
  for (gene in rownames(genes)) {
    data$response <- as.numeric(genes[gene, ])
    add(name, designs$formula[i], gene, data, "response")
  }
}
write_table(rows, file.path("slopes", "lme4.csv"))
write_versions(file.path("slopes", "versions.txt"))
