// What the kernels of every device demand of the arguments of `detect`.
#pragma once

#include "boxes.h"
#include "check.h"

namespace sbnet {

inline void check_detect(const Tensor& rows, const Tensor& flat, int64_t width, const std::vector<double>& place,
                         const std::vector<double>& thresholds, const std::vector<int64_t>& groups, double iou,
                         int64_t limit) {
  constexpr const char* op = "detect";
  const auto classes = static_cast<int64_t>(thresholds.size());
  check(rows.dim() == 2 && rows.size(1) == classes + kBox && rows.scalar_type() == ScalarType::Float &&
            rows.is_contiguous() && rows.size(0) <= kHighest,
        op, ": rows must be contiguous float32 [P, ", classes + kBox, "], got ", describe(rows));
  check(flat.dim() == 1 && flat.size(0) == rows.size(0) && flat.scalar_type() == ScalarType::Long &&
            flat.is_contiguous() && flat.device() == rows.device(),
        op, ": flat must be contiguous int64 [", rows.size(0), "] on the device of rows, got ", describe(flat));
  check(classes >= 1 && groups.size() == thresholds.size(), op, ": groups must be ", classes, ", one for each class");
  check(place.size() == 3 && width >= 1, op, ": place must be x_min, y_min and the side of a pixel, width positive");
  check(iou >= 0, op, ": iou must be 0 or more, got ", iou);
  check(limit >= 0 && limit <= kHighest, op, ": limit must be 0 or more, got ", limit);
}

}  // namespace sbnet
