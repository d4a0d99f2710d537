# Write samples/<design>.lme4.csv: tight fits, ML and REML, of every gene that data.py wrote.
#     cd tests/reference && Rscript samples.R [design ...]

source("lme4.R")

designs <- read.csv("samples/designs.csv", stringsAsFactors = FALSE)
wanted <- commandArgs(trailingOnly = TRUE)
if (length(wanted)) designs <- designs[designs$design %in% wanted, ]

for (i in seq_len(nrow(designs))) {
  path <- function(what) file.path("samples", paste0(designs$design[i], ".", what, ".csv"))
  expression <- as.matrix(read.csv(path("expression"), row.names = 1, check.names = FALSE))
  metadata <- read.csv(path("metadata"), row.names = 1, stringsAsFactors = FALSE)
  stopifnot(colnames(expression) == rownames(metadata))
  rows <- list()
  for (gene in rownames(expression)) for (reml in c(FALSE, TRUE)) {
    data <- cbind(metadata, y = expression[gene, ])
    fit <- tight(as.formula(paste("y", designs$formula[i])), data, reml)
    rows <- c(rows, list(c(list(gene = gene, reml = as.character(reml)), as.list(numbers(fit)))))
  }
  write_table(rows, path("lme4"))
}
write_versions("versions.txt")
