// The fused layers for one instruction set. Compiled once for each (setup.py).
#include <cstddef>

#include "pack_weights.h"
#include "stream.h"
#include "voxel_conv.h"

namespace sbnet::SBNET_ISA {
namespace {

// A matrix of `outputs` rows that multiplies windows or pixels.
template <typename N>
struct Product {
  using Element = typename N::Element;
  using Scale = typename N::Scale;

  const Element* weights;
  const Scale *scale, *shift;
  int outputs, depth;

  Product(const Weights& w, int outputs_, int depth_)
      : weights(static_cast<const Element*>(w.packed)),
        scale(static_cast<const Scale*>(w.scale)),
        shift(static_cast<const Scale*>(w.shift)),
        outputs(outputs_),
        depth(depth_) {}

  // Weights of one of several terms of the same depth.
  const Element* term(int number) const {
    return weights + number * Panels<Element>::size(outputs, depth);
  }
};

// The three rows of the windows of a group, each read as one row of 3 pixels.
template <typename N, typename Element = typename N::Element>
void multiply_windows(const Emitted<Element>* pixels, int size, const Product<N>& conv, typename N::Sum* sums,
                      int stride) {
  const Element* rows[3][kGroup];
  for (int p = 0; p < padded_group(size); ++p)
    for (int i = 0; i < 3; ++i) rows[i][p] = pixels[p < size ? p : 0].window[i];
  const Term<Element> terms[3] = {
      {rows[0], conv.term(0), conv.depth}, {rows[1], conv.term(1), conv.depth}, {rows[2], conv.term(2), conv.depth}};
  multiply<Element>(terms, 3, size, conv.outputs, sums, stride);
}

// Addresses of `size` rows of a buffer, for a group that is padded.
template <typename Element>
void row_pointers(const Element* rows, int stride, int size, const Element** pointers) {
  for (int p = 0; p < padded_group(size); ++p) pointers[p] = rows + (p < size ? p : 0) * stride;
}

// The pixels of a group as the products read them: where they lie, if type and padding allow, else copied. Levels are
// made of floats by `activation`.
template <typename Storage, typename Element>
class Inputs {
 public:
  Inputs(Scratch& scratch, const Map& map, const Weights& activation)
      : map_(map),
        activation_(activation),
        stride_(padded_channels(map.channels)),
        copies_(scratch.take<Element>(kGroup * stride_)),
        nothing_(scratch.take<Storage>(map.channels)) {}

  void clear() {
    zero(copies_, kGroup * stride_);
    zero(nothing_, map_.channels);
  }
  // `number` of a stored pixel; -1 for one that is not.
  void set(int p, int64_t number) {
    const auto* const from = number < 0 ? nothing_ : static_cast<const Storage*>(map_.data) + number * map_.channels;
    if constexpr (std::is_same_v<Storage, Element>)
      if (stride_ == map_.channels) {
        pointers_[p] = from;
        return;
      }
    Element* const copy = copies_ + p * stride_;
    if constexpr (std::is_same_v<Storage, float> && std::is_same_v<Element, uint8_t>)
      normalize<false>(from, map_.channels, static_cast<const float*>(activation_.scale),
                       static_cast<const float*>(activation_.shift), copy);
    else
      convert<typename Multiply<Element>::Sum>(from, map_.channels, copy);
    pointers_[p] = copy;
  }
  Term<Element> term(int size, const Element* weights) {
    for (int p = size; p < padded_group(size); ++p) pointers_[p] = pointers_[0];
    return {pointers_, weights, stride_};
  }

 private:
  Map map_;
  Weights activation_;
  int stride_;
  Element* copies_;
  Storage* nothing_;
  const Element* pointers_[kGroup];
};

template <typename N>
void compute(const Unit& u, const Band& band, Scratch& scratch) {
  using X = typename N::X;
  using Y = typename N::Y;
  using Element = typename N::Element;
  using Sum = typename N::Sum;
  using Scale = typename N::Scale;
  const int in = u.x.channels, out = u.y.channels, middle = u.middle;
  const int in_pad = padded_channels(in), middle_pad = padded_channels(middle);
  const bool projects = u.project.packed != nullptr;
  const Product<N> reduce(u.reduce, middle, in_pad), conv(u.conv, middle, 3 * middle_pad);
  const Product<N> expand(u.expand, out, middle_pad), project(u.project, out, in_pad);
  const auto* const scale = static_cast<const Scale*>(u.activation.scale);
  const auto* const shift = static_cast<const Scale*>(u.activation.shift);
  const int stride = std::max(padded_outputs<Element>(middle), padded_outputs<Element>(out));

  Stream<Element> stream(scratch, {u.x, u.y, u.stride, sizeof(X), u.needed, u.active}, middle);
  auto* const activated = scratch.take<Element>(kGroup * in_pad);
  auto* const narrow = scratch.take<Element>(kGroup * middle_pad);
  auto* const sums = scratch.take<Sum>(kGroup * stride);
  if (scratch.counts()) return;
  zero(activated, kGroup * in_pad);
  zero(narrow, kGroup * middle_pad);
  const Element* wide_pointers[kGroup];
  const Element* narrow_pointers[kGroup];

  const auto activate = [&](int p, const void* from) {
    normalize(static_cast<const X*>(from), in, scale, shift, activated + p * in_pad);
  };
  // BN, ReLU, 1x1, BN, ReLU into the window
  const auto fill = [&](const Filled<Element>* pixels, int size) {
    for (int p = 0; p < size; ++p) activate(p, pixels[p].from);
    row_pointers(activated, in_pad, size, wide_pointers);
    const Term<Element> term{wide_pointers, reduce.weights, in_pad};
    multiply<Element>(&term, 1, size, middle, sums, stride);
    for (int p = 0; p < size; ++p) normalize(sums + p * stride, middle, reduce.scale, reduce.shift, pixels[p].to);
  };
  // 3x3, BN, ReLU, 1x1, sum
  const auto emit = [&](const Emitted<Element>* pixels, int size) {
    multiply_windows(pixels, size, conv, sums, stride);
    for (int p = 0; p < size; ++p)
      normalize(sums + p * stride, middle, conv.scale, conv.shift, narrow + p * middle_pad);
    row_pointers(narrow, middle_pad, size, narrow_pointers);
    if (projects) {
      for (int p = 0; p < size; ++p) activate(p, pixels[p].centre);
      row_pointers(activated, in_pad, size, wide_pointers);
    }
    const Term<Element> terms[2] = {{narrow_pointers, expand.weights, middle_pad},
                                    {wide_pointers, project.weights, in_pad}};
    multiply<Element>(terms, projects ? 2 : 1, size, out, sums, stride);
    for (int p = 0; p < size; ++p) {
      auto* const to = static_cast<Y*>(u.y.data) + pixels[p].out * out;
      const auto* const from = projects ? nullptr : static_cast<const Y*>(pixels[p].centre);
      if constexpr (kOfLevels<N>)
        add_scaled(from, sums + p * stride, expand.scale, out, to);
      else if (projects)
        convert<Sum>(sums + p * stride, out, to);
      else
        add(from, sums + p * stride, out, to);
    }
  };
  stream.run(band, fill, emit);
}

// Sums of a group to their pixels of the output, with the layer's normalization.
template <typename N, typename Pixel>
void finish(const Pixel* pixels, int size, const typename N::Sum* sums, int stride, const Product<N>& product,
            bool with_relu, const Map& y) {
  for (int p = 0; p < size; ++p) {
    auto* const to = static_cast<typename N::Y*>(y.data) + pixels[p].out * y.channels;
    if (with_relu)
      normalize(sums + p * stride, y.channels, product.scale, product.shift, to);
    else
      normalize<false>(sums + p * stride, y.channels, product.scale, product.shift, to);
  }
}

template <typename N>
void conv3x3(const Conv& c, const Band& band, Scratch& scratch) {
  using Element = typename N::Element;
  using Sum = typename N::Sum;
  const int in = c.x.channels, out = c.y.channels;
  const Product<N> conv(c.weights, out, 3 * padded_channels(in));
  const int stride = padded_outputs<Element>(out);
  Stream<Element> stream(scratch, {c.x, c.y, 1, sizeof(typename N::X), c.needed, c.active}, in);
  auto* const sums = scratch.take<Sum>(kGroup * stride);
  if (scratch.counts()) return;

  const auto fill = [&](const Filled<Element>* pixels, int size) {
    for (int p = 0; p < size; ++p)
      convert<Sum>(static_cast<const typename N::X*>(pixels[p].from), in, pixels[p].to);
  };
  const auto emit = [&](const Emitted<Element>* pixels, int size) {
    multiply_windows(pixels, size, conv, sums, stride);
    finish(pixels, size, sums, stride, conv, c.relu, c.y);
  };
  stream.run(band, fill, emit);
}

// Numbers of an output pixel, of the input pixel beneath it, and of that in the map of half the size.
struct Pixel {
  int64_t out, in, coarse;
};

// Calls body(pixels, n) for groups of active pixels.
template <typename Body>
void for_each_active(const Rows& active, const Band& band, const Map& in, Pixel* pixels, Body body) {
  for (int64_t first = band.begin; first < band.end; first += kChunkRows) {
    int64_t found = 0;
    for (int64_t row = first; row < std::min(first + kChunkRows, band.end); ++row) {
      Walk walk(in.stored, row);
      for (const Run* run = active.begin(row); run != active.end(row); ++run)
        for (int64_t x = run->begin, out = run->number; x < run->end; ++x, ++out)
          pixels[found++] = {out, walk.number(x), 0};
    }
    for_each_group(found, [&](int64_t start, int size) { body(pixels + start, size); });
  }
}

// Calls body(phase, pixels, n) for groups of active pixels of the same parity of row and column, 2 * row + column.
template <typename Body>
void for_each_phase(const Rows& active, const Band& band, const Map& in, const Map& coarse, Pixel* pixels, Body body) {
  for (int64_t first = band.begin; first < band.end; first += kChunkRows)
    for (int phase = 0; phase < 4; ++phase) {
      int64_t found = 0;
      for (int64_t row = first; row < std::min(first + kChunkRows, band.end); ++row) {
        const int64_t image = row / in.height, y = row % in.height;
        if (y % 2 != phase / 2) continue;
        Walk walk(in.stored, row), coarse_walk(coarse.stored, image * coarse.height + y / 2);
        for (const Run* run = active.begin(row); run != active.end(row); ++run)
          for (int64_t x = run->begin + (run->begin + phase) % 2; x < run->end; x += 2)
            pixels[found++] = {run->number + (x - run->begin), walk.number(x), coarse_walk.number(x / 2)};
      }
      for_each_group(found, [&](int64_t start, int size) { body(phase, pixels + start, size); });
    }
}

template <typename N>
void conv1x1(const Conv& c, const Band& band, Scratch& scratch) {
  using Element = typename N::Element;
  const int out = c.y.channels, stride = padded_outputs<Element>(out);
  const Product<N> conv(c.weights, out, padded_channels(c.x.channels));
  auto* const list = scratch.take<Pixel>(kChunkRows * c.y.width);
  Inputs<typename N::X, Element> inputs(scratch, c.x, c.activation);
  auto* const sums = scratch.take<typename N::Sum>(kGroup * stride);
  if (scratch.counts()) return;
  inputs.clear();

  for_each_active(c.active, band, c.x, list, [&](const Pixel* pixels, int size) {
    for (int p = 0; p < size; ++p) inputs.set(p, pixels[p].in);
    const Term<Element> term = inputs.term(size, conv.weights);
    multiply<Element>(&term, 1, size, out, sums, stride);
    finish(pixels, size, sums, stride, conv, c.relu, c.y);
  });
}

template <typename N>
void compute(const Conv& c, const Band& band, Scratch& scratch) {
  if constexpr (!std::is_same_v<typename N::X, float> || !kOfLevels<N>)
    if (c.kernel == 3) return conv3x3<N>(c, band, scratch);
  conv1x1<N>(c, band, scratch);
}

template <typename N>
void compute(const Upsample& u, const Band& band, Scratch& scratch) {
  using Element = typename N::Element;
  using Skip = std::conditional_t<kOfLevels<N>, float, typename N::X>;
  const int out = u.y.channels, stride = padded_outputs<Element>(out);
  const Product<N> up(u.up, out, padded_channels(u.x.channels));
  const Product<N> lateral(u.lateral, out, padded_channels(u.skip.channels));
  auto* const list = scratch.take<Pixel>(kChunkRows * u.y.width);
  Inputs<typename N::X, Element> inputs(scratch, u.x, {});
  Inputs<Skip, Element> skips(scratch, u.skip, u.activation);
  auto* const sums = scratch.take<typename N::Sum>(kGroup * stride);
  if (scratch.counts()) return;
  inputs.clear();
  skips.clear();

  for_each_phase(u.active, band, u.skip, u.x, list, [&](int phase, const Pixel* pixels, int size) {
    for (int p = 0; p < size; ++p) {
      inputs.set(p, pixels[p].coarse);
      skips.set(p, pixels[p].in);
    }
    const Term<Element> terms[2] = {inputs.term(size, up.term(phase)), skips.term(size, lateral.weights)};
    multiply<Element>(terms, 2, size, out, sums, stride);
    finish(pixels, size, sums, stride, lateral, true, u.y);
  });
}

// Calls body(numbers) for those of a layer. Where levels are multiplied, x and y may each be of them, or of floats; units
// leave floats.
template <typename Layer, typename Body>
void with_numbers(const Layer& layer, Body body) {
  const bool x_has_levels = layer.x.type == Type::kLevels, y_has_levels = layer.y.type == Type::kLevels;
  with_type(layer.type, [&]<typename T>(T) {
    if constexpr (!std::is_same_v<T, uint8_t>)
      body(Numbers<T>{});
    else if constexpr (std::is_same_v<Layer, Unit>)
      x_has_levels ? body(Levels<uint8_t, float>{}) : body(Levels<float, float>{});
    else if constexpr (std::is_same_v<Layer, Upsample>)
      body(Levels<uint8_t, uint8_t>{});
    else if (x_has_levels)
      y_has_levels ? body(Levels<uint8_t, uint8_t>{}) : body(Levels<uint8_t, float>{});
    else
      y_has_levels ? body(Levels<float, uint8_t>{}) : body(Levels<float, float>{});
  });
}

template <typename Body>
void with_numbers(const VoxelConv& layer, Body body) {
  with_type(layer.type, body);
}

template <typename Layer>
constexpr LayerKernel<Layer> kLayerKernel = {
    [](const Layer& layer) {
      Scratch scratch;
      with_numbers(layer, [&]<typename N>(N) { compute<N>(layer, {}, scratch); });
      return scratch.used();
    },
    [](const Layer& layer, const Band& band, void* memory) {
      Scratch scratch(memory);
      [[maybe_unused]] const TileGuard guard;
      with_numbers(layer, [&]<typename N>(N) { compute<N>(layer, band, scratch); });
    },
};

}  // namespace

#define SBNET_TEXT(name) #name
#define SBNET_NAME(name) SBNET_TEXT(name)

extern const Kernels kKernels;
const Kernels kKernels = {SBNET_NAME(SBNET_ISA), kPackKernel, kLayerKernel<Unit>, kLayerKernel<Conv>,
                          kLayerKernel<Upsample>, kLayerKernel<VoxelConv>};

}  // namespace sbnet::SBNET_ISA
