/* A quadtree over points of the plane, whose cells stand for the points in them when seen from far enough (Barnes and
 * Hut 1986). Points are sorted along a Z-curve first, so that what is near in the plane is near in memory. */
#pragma once

#include "common/base.h"

#include <stdbool.h>
#include <stdint.h>

struct quadtree;

struct quadtree *quadtree_new(size_t points);
void quadtree_free(struct quadtree *tree);
/* Builds it anew for positions [points][2]. */
void quadtree_build(struct quadtree *tree, const float *positions, size_t points);
/* The points along the curve. */
const uint32_t *quadtree_order(const struct quadtree *tree);
/* For the point at this place of the order: the sums over all others of q^2 d (into out_force) and of q (returned),
 * where q = 1 / (1 + d^2). Cells whose width is below theta times their distance count as one point. */
double quadtree_repulsion(const struct quadtree *tree, size_t place, float theta, float out_force[2]);
size_t quadtree_bytes(size_t points);
