# Tight lme4 fits with random slopes and weights of each gene's own, which it draws
# (slopes/growth.weights.csv, genes x samples): slopes/weights.csv, one quantity a row, ML and REML.
#     cd tests/reference && Rscript slopes_weights.R
#
# Weights are divided by their mean over the observations that count; those of weight zero are
# dropped by hand (lme4 itself gives -Inf for them).

source("lme4.R")
source("slopes_fits.R")
set.seed(6)

path <- function(what) file.path("slopes", paste0("growth.", what, ".csv"))
metadata <- read.csv(path("metadata"), row.names = 1, stringsAsFactors = TRUE)
expression <- as.matrix(read.csv(path("expression"), row.names = 1, check.names = FALSE))
expression <- expression[c(1, 3, 5, 7), ]
# lmer leaves what it was told as `weights` in the formula's environment: another name.
drawn <- expression
drawn[] <- signif(rgamma(length(drawn), 3), 6)
# In the last gene observations are lost, and with them a subject.
drawn[4, metadata$Subject == levels(metadata$Subject)[2] | runif(ncol(drawn)) < 0.1] <- 0
write.csv(drawn, path("weights"), quote = FALSE)

rows <- list()
for (formula in c("~ Time + (Time|Subject)", "~ Age + (1|Batch) + (0 + Time|Subject)")) {
  for (gene in rownames(expression)) {
    keep <- drawn[gene, ] > 0
    data <- droplevels(cbind(metadata, response = expression[gene, ])[keep, ])
    data$w <- drawn[gene, keep] / mean(drawn[gene, keep])
    for (reml in c(FALSE, TRUE)) {
      found <- quantities(tight_slopes(as.formula(paste("response", formula)), data, reml, data$w))
      for (quantity in names(found)) {
        rows <- c(rows, list(list(
          formula = formula, gene = gene, reml = as.character(reml),
          quantity = quantity, value = found[[quantity]]
        )))
      }
    }
  }
}
write_table(rows, file.path("slopes", "weights.csv"))
