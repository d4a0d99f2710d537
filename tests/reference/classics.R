# Write lme4's own examples (data as CSV) and tight fits of them: classics.csv, classics/*.csv.
#     cd tests/reference && Rscript classics.R

source("lme4.R")
dir.create("classics", showWarnings = FALSE)

models <- list(
  sleepstudy = Reaction ~ Days + (1 | Subject),
  Dyestuff = Yield ~ 1 + (1 | Batch),
  Dyestuff2 = Yield ~ 1 + (1 | Batch),
  Penicillin = diameter ~ 1 + (1 | plate) + (1 | sample),
  Pastes = strength ~ 1 + (1 | batch / cask),
  cake = angle ~ recipe * temperature + (1 | recipe:replicate)
)

rows <- list()
for (name in names(models)) {
  data <- get(name)
  write.csv(data, file.path("classics", paste0(name, ".csv")), row.names = FALSE, quote = FALSE)
  formula <- models[[name]]
  right <- gsub("\\(1 \\| ([^)]*)\\)", "(1|\\1)", paste(deparse(formula[[3]]), collapse = ""))
  for (reml in c(FALSE, TRUE)) {
    head <- list(
      data = name, response = as.character(formula[[2]]), formula = paste("~", right),
      reml = as.character(reml)
    )
    rows <- c(rows, list(c(head, as.list(numbers(tight(formula, data, reml))))))
  }
  # jaxvp codes ordered factors like others, by treatment: the same model, other coefficients, and
  # another constant in the REML criterion. lme4's polynomials stay as the first pair of rows.
  if (name == "cake") {
    data$temperature <- factor(data$temperature, ordered = FALSE)
    for (reml in c(FALSE, TRUE)) {
      head <- list(
        data = "cake (treatment)", response = "angle", formula = paste("~", right),
        reml = as.character(reml)
      )
      rows <- c(rows, list(c(head, as.list(numbers(tight(formula, data, reml))))))
    }
  }
}
# Long: one quantity a row.
long <- lapply(rows, function(row) {
  quantities <- setdiff(names(row), c("data", "response", "formula", "reml"))
  lapply(quantities, function(q) c(row[c("data", "response", "formula", "reml")],
                                   list(quantity = q, value = row[[q]])))
})
write_table(do.call(c, long), "classics.csv")
write_versions("versions.txt")
