/* Is the difference between two systems more than chance? */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Two-sided p-value of Fisher's paired randomisation test, as Smucker, Allan and Carterette recommend it for retrieval
 * ("A Comparison of Statistical Significance Tests for Information Retrieval Evaluation", CIKM 2007): how often the
 * mean of the differences is as far from 0 as it is when each difference's sign is thrown by a coin. Exact for up to 16
 * differences that are not 0, else `rounds` throws of a generator that starts the same each time. 1 when there are
 * none.
 */
double ir_randomisation_test(const double *differences, size_t count, size_t rounds);
