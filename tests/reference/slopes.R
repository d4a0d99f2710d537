# Tight lme4 fits with random slopes: slopes/lme4.csv, one quantity a row.
#     cd tests/reference && python slopes_data.py && Rscript slopes.R

source("lme4.R")
source("slopes_fits.R")

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
