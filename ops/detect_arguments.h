// What the kernels of every device demand of the arguments of `detect`.
#pragma once

#include "boxes.h"
#include "extents.h"

namespace sbnet {

constexpr int64_t kMostBoxes = int64_t{1} << 16;

inline void check_detect(const Tensor& rows, const Tensor& flat, int64_t width, const std::vector<double>& place,
                         const std::vector<double>& thresholds, const std::vector<int64_t>& groups, double iou,
                         int64_t limit) {
  constexpr const char* op = "detect";
  const auto classes = static_cast<int64_t>(thresholds.size());
  check(rows.dim() == 2 && rows.size(1) == classes + kBox && rows.scalar_type() == ScalarType::Float &&
            rows.is_contiguous() && rows.size(0) <= kMostCells,
        op, ": rows must be contiguous float32 [P, ", classes + kBox, "], got ", describe(rows));
  check(flat.dim() == 1 && flat.size(0) == rows.size(0) && flat.scalar_type() == ScalarType::Long &&
            flat.is_contiguous() && flat.device() == rows.device(),
        op, ": flat must be contiguous int64 [", rows.size(0), "] on the device of rows, got ", describe(flat));
  check(classes >= 1 && groups.size() == thresholds.size(), op, ": groups must be ", classes, ", one for each class");
  for (const double threshold : thresholds)
    check(!std::isnan(threshold), op, ": thresholds must be numbers, got ", threshold);
  check(width >= 1 && width <= kMostCells, op, ": width must be 1 to ", kMostCells, ", got ", width);
  check(place.size() == 3, op, ": place must be x_min, y_min and the side of a pixel, got ", place.size(), " numbers");
  check_position(op, "place", place[0]);
  check_position(op, "place", place[1]);
  check_side(op, "place", place[2]);
  check(iou >= 0, op, ": iou must be 0 or more, got ", iou);
  check(limit >= 0 && limit <= kMostBoxes, op, ": limit must be 0 to ", kMostBoxes, ", got ", limit);
}

}  // namespace sbnet
