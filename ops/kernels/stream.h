// Streams the rows of a map through a 3x3 window: rows are computed once, kept while the window needs them, and only
// where an active pixel looks. Tiles are no more than the granularity of the mask; no halo is computed twice.
#pragma once

#include <algorithm>

#include "../kernels.h"
#include "elements.h"

namespace sbnet::SBNET_ISA {

// Hands out parts of scratch memory; without memory it only counts how much a layer takes.
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(void* base) : base_(static_cast<char*>(base)) {}

  template <typename T>
  T* take(int64_t count) {
    const int64_t begin = used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return counts() ? nullptr : reinterpret_cast<T*>(base_ + begin);
  }
  bool counts() const { return !base_; }
  int64_t used() const { return used_; }

 private:
  char* base_ = nullptr;
  int64_t used_ = 0;
};

// Output rows that are computed together: enough pixels to fill groups, few enough rows to stay in the cache.
constexpr int kChunkRows = 4;
constexpr int kChunkPixels = 8 * kGroup;

// Input rows beneath them.
constexpr int window_rows(int stride) { return stride * (kChunkRows - 1) + 3; }

// Splits `count` pixels into groups of nearly the same size, so that no group is left with a pixel or two.
template <typename Body>
void for_each_group(int64_t count, Body body) {
  int64_t parts = (count + kGroup - 1) / kGroup;
  for (int64_t first = 0; parts > 0; --parts) {
    const int64_t left = count - first;
    const int size = static_cast<int>(std::min<int64_t>(padded_group((left + parts - 1) / parts), left));
    body(first, size);
    first += size;
  }
}

template <typename Element>
void zero(Element* to, int64_t count) {
  std::memset(static_cast<void*>(to), 0, count * sizeof(Element));
}

template <typename Element>
struct Filled {
  const void* from;  // channels of an input pixel
  Element* to;       // where its window row wants it
};

template <typename Element>
struct Emitted {
  const Element* window[3];  // left pixel of the three rows of the window
  const void* centre;        // channels of the input pixel in its middle
  int64_t out;               // number of the output pixel
};

// The window's rows: a ring of rows of `width` + 2 pixels, the outermost of which are 0 like everything outside the map.
template <typename Element>
class Window {
 public:
  Window(Scratch& scratch, int64_t width, int channels, int stride)
      : channels_(padded_channels(channels)),
        slots_(window_rows(stride)),
        row_((width + 2) * channels_),
        data_(scratch.take<Element>((slots_ + 1) * row_)) {}

  // Everything that is read without being filled: the border columns, the row of zeros, and the padding of channels.
  void clear(bool padded) {
    if (padded) return zero(data_, (slots_ + 1) * row_);
    for (int64_t slot = 0; slot < slots_; ++slot) {
      zero(data_ + slot * row_, channels_);
      zero(data_ + (slot + 1) * row_ - channels_, channels_);
    }
    zero(data_ + slots_ * row_, row_);
  }
  int channels() const { return channels_; }
  // Column -1 of a row; the row of zeros for one outside the map.
  Element* row(int64_t number, int64_t height) const {
    return data_ + (number < 0 || number >= height ? slots_ : number % slots_) * row_;
  }

 private:
  int channels_;
  int64_t slots_, row_;
  Element* data_;
};

// What a layer with a 3x3 window is streamed over.
struct Streamed {
  Map in, out;
  int stride;
  int bytes;  // of one channel in memory
  Rows needed, active;
};

// Calls fill(pixels, n) for groups of input pixels and emit(pixels, n) for groups of output pixels whose windows are
// filled, row by row through `band`.
template <typename Element>
class Stream {
 public:
  Stream(Scratch& scratch, const Streamed& maps, int channels)
      : maps_(maps),
        padded_(padded_channels(channels) != channels),
        window_(scratch, maps.in.width, channels, maps.stride),
        absent_(scratch.take<Element>(window_.channels())),
        nothing_(scratch.take<char>(pixel_bytes())),
        filled_(scratch.take<Filled<Element>>(window_rows(maps.stride) * maps.in.width)),
        emitted_(scratch.take<Emitted<Element>>(kChunkRows * maps.out.width)) {}

  template <typename Fill, typename Emit>
  void run(const Band& band, Fill fill, Emit emit) {
    window_.clear(padded_);
    zero(nothing_, pixel_bytes());
    zero(absent_, window_.channels());
    const Filled<Element> nothing{nothing_, absent_};
    fill(&nothing, 1);
    for (int64_t begin = band.begin; begin < band.end;) {
      // one image after the other
      const int64_t image = begin / maps_.out.height, end = std::min(band.end, (image + 1) * maps_.out.height);
      int64_t next = 0;
      for (int64_t row = begin; row < end;) {
        // output rows [row, last) are computed together
        int64_t last = row, pixels = 0;
        while (last < end && last - row < kChunkRows && pixels < kChunkPixels) pixels += count_pixels(maps_.active, last, last + 1), ++last;
        if (pixels > 0) {
          next = fill_rows(band, image, row - image * maps_.out.height, last - image * maps_.out.height, next, fill);
          emit_rows(image, row, last, emit);
        }
        row = last;
      }
      begin = end;
    }
  }

 private:
  // Fills the input rows beneath output rows [first, last) from row `next` on; returns the row after them.
  template <typename Fill>
  int64_t fill_rows(const Band& band, int64_t image, int64_t first, int64_t last, int64_t next, Fill fill) {
    const int64_t begin = std::max({next, maps_.stride * first - 1, int64_t{0}});
    const int64_t end = std::min(maps_.stride * (last - 1) + 2, maps_.in.height);
    int64_t pixels = 0;
    for (int64_t y = begin; y < end; ++y) {
      const int64_t row = image * maps_.in.height + y;
      RowCopy from{maps_.in.data, 0};
      if (band.above.data && row == band.begin - 1) from = band.above;
      if (band.below.data && row == band.end) from = band.below;
      Element* const to = window_.row(y, maps_.in.height) + window_.channels();
      Walk walk(maps_.in.stored, row);
      for (const Run* run = maps_.needed.begin(row); run != maps_.needed.end(row); ++run)
        walk.along(
            run->begin, run->end,
            [&](int64_t x, int64_t stop, int64_t number) {
              const char* pixel = at(from.data, number - from.first);
              for (; x < stop; ++x, pixel += pixel_bytes())
                filled_[pixels++] = {pixel, to + x * window_.channels()};
            },
            [&](int64_t x, int64_t stop) {
              for (; x < stop; ++x)
                std::memcpy(to + x * window_.channels(), absent_, window_.channels() * sizeof(Element));
            });
    }
    for_each_group(pixels, [&](int64_t start, int size) { fill(filled_ + start, size); });
    return std::max(next, end);
  }

  template <typename Emit>
  void emit_rows(int64_t image, int64_t first, int64_t last, Emit emit) {
    int64_t pixels = 0;
    for (int64_t row = first; row < last; ++row) {
      const int64_t y = maps_.stride * (row - image * maps_.out.height);
      const Element* window[3];
      for (int i = 0; i < 3; ++i) window[i] = window_.row(y + i - 1, maps_.in.height);
      Walk walk(maps_.in.stored, image * maps_.in.height + y);
      for (const Run* run = maps_.active.begin(row); run != maps_.active.end(row); ++run)
        for (int64_t x = run->begin, out = run->number; x < run->end; ++x, ++out) {
          const int64_t left = maps_.stride * x * window_.channels(), centre = walk.number(maps_.stride * x);
          emitted_[pixels++] = {{window[0] + left, window[1] + left, window[2] + left},
                                centre < 0 ? nothing_ : at(maps_.in.data, centre),
                                out};
        }
    }
    for_each_group(pixels, [&](int64_t start, int size) { emit(emitted_ + start, size); });
  }

  int64_t pixel_bytes() const { return static_cast<int64_t>(maps_.in.channels) * maps_.bytes; }
  const char* at(const void* data, int64_t number) const {
    return static_cast<const char*>(data) + number * pixel_bytes();
  }

  Streamed maps_;
  bool padded_;
  Window<Element> window_;
  Element* absent_;  // a pixel of the window that is not stored in the input, as `fill` makes it
  char* nothing_;    // channels of such a pixel
  Filled<Element>* filled_;
  Emitted<Element>* emitted_;
};

}  // namespace sbnet::SBNET_ISA
