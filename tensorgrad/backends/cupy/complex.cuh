// Complex arithmetic of the formulas, c64 and c128; depends on core.cuh only (NVRTC finds no <complex>).
//
// Products are the plain four multiplications, as in NumPy. Inverse functions follow Kahan 1987, "Branch cuts for complex
// elementary functions": right on both sides of every cut, no overflow in between.
#pragma once

namespace tg {

template <class R>
struct alignas(2 * sizeof(R)) complex_of {
  R re, im;
};
typedef complex_of<float> c64;
typedef complex_of<double> c128;

template <class R> TG_FN complex_of<R> complex(R re, R im) {
  complex_of<R> z;
  z.re = re;
  z.im = im;
  return z;
}

#define TG_C template <class R> TG_FN complex_of<R>

TG_FN c64 to_c64(c64 z) { return z; }
TG_FN c64 to_c64(c128 z) { return complex((float)z.re, (float)z.im); }
template <class T> TG_FN c64 to_c64(T x) { return complex(to_f32(x), 0.0f); }
TG_FN c128 to_c128(c64 z) { return complex((double)z.re, (double)z.im); }
TG_FN c128 to_c128(c128 z) { return z; }
template <class T> TG_FN c128 to_c128(T x) { return complex(to_f64(x), 0.0); }
template <class R> TG_FN bool to_bool(complex_of<R> z) { return z.re != 0 || z.im != 0; }
template <class R> TG_FN i64 to_i64(complex_of<R> z) { return to_i64(z.re); }
template <class R> TG_FN float to_f32(complex_of<R> z) { return to_f32(z.re); }
template <class R> TG_FN double to_f64(complex_of<R> z) { return to_f64(z.re); }

template <class R> TG_FN R real(complex_of<R> z) { return z.re; }
template <class R> TG_FN R imag(complex_of<R> z) { return z.im; }
template <class R> TG_FN R angle(complex_of<R> z) { return atan2(z.im, z.re); }
template <class R> TG_FN R abs(complex_of<R> z) { return hypot(z.re, z.im); }
template <class R> TG_FN bool eq(complex_of<R> a, complex_of<R> b) { return a.re == b.re && a.im == b.im; }
template <class R> TG_FN bool ne(complex_of<R> a, complex_of<R> b) { return !eq(a, b); }
template <class R> TG_FN bool isnan(complex_of<R> z) { return isnan(z.re) || isnan(z.im); }
template <class R> TG_FN bool isinf(complex_of<R> z) { return isinf(z.re) || isinf(z.im); }
template <class R> TG_FN bool isfinite(complex_of<R> z) { return isfinite(z.re) && isfinite(z.im); }

TG_C conj(complex_of<R> z) { return complex(z.re, -z.im); }
TG_C neg(complex_of<R> z) { return complex(-z.re, -z.im); }
TG_C add(complex_of<R> a, complex_of<R> b) { return complex(a.re + b.re, a.im + b.im); }
TG_C sub(complex_of<R> a, complex_of<R> b) { return complex(a.re - b.re, a.im - b.im); }
TG_C mul(complex_of<R> a, complex_of<R> b) {
  return complex(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re);
}

// Smith 1962: divide by the larger part first, so that |b|^2 is never formed
TG_C div(complex_of<R> a, complex_of<R> b) {
  if (abs(b.re) >= abs(b.im)) {
    if (b.re == 0 && b.im == 0) return complex(a.re / abs(b.re), a.im / abs(b.re));
    const R ratio = b.im / b.re, scale = 1 / (b.re + b.im * ratio);
    return complex((a.re + a.im * ratio) * scale, (a.im - a.re * ratio) * scale);
  }
  const R ratio = b.re / b.im, scale = 1 / (b.im + b.re * ratio);
  return complex((a.re * ratio + a.im) * scale, (a.im * ratio - a.re) * scale);
}

TG_C exp(complex_of<R> z) {
  const R size = exp(z.re);
  if (z.im == 0) return complex(size, z.im);
  if (isinf(size) && isfinite(z.re)) {  // e^x overflows, e^x cos y may not
    const R half = exp(z.re / 2);
    return complex(half * cos(z.im) * half, half * sin(z.im) * half);
  }
  if (size == 0 && !isfinite(z.im)) return complex((R)0, (R)0);
  return complex(size * cos(z.im), size * sin(z.im));
}

// log |z| near |z| = 1 from |z|^2 - 1 = (a - 1)(a + 1) + b^2, which does not cancel
template <class R> TG_FN R log_abs(complex_of<R> z) {
  const R size = abs(z);
  if (size > (R)0.7 && size < (R)1.5) {
    const R a = max(abs(z.re), abs(z.im)), b = min(abs(z.re), abs(z.im));
    return log1p((a - 1) * (a + 1) + b * b) / 2;
  }
  return log(size);
}
TG_C log(complex_of<R> z) { return complex(log_abs(z), angle(z)); }
TG_C log2(complex_of<R> z) {
  const R scale = (R)1.4426950408889634;
  return complex(log_abs(z) * scale, angle(z) * scale);
}
TG_C log10(complex_of<R> z) {
  const R scale = (R)0.4342944819032518;
  return complex(log_abs(z) * scale, angle(z) * scale);
}

TG_C sqrt(complex_of<R> z) {
  if (z.re == 0 && z.im == 0) return complex((R)0, z.im);
  if (isinf(z.im)) return complex(abs(z.im), z.im);
  if (isinf(z.re) && !isnan(z.im)) {
    return z.re > 0 ? complex(z.re, copysign((R)0, z.im)) : complex((R)0, copysign(abs(z.re), z.im));
  }
  // quartered, |z| + |re| can't overflow; where z is tiny it is scaled up first
  const bool tiny = abs(z.re) < (R)1e-30 && abs(z.im) < (R)1e-30;
  const R scale = tiny ? (R)1.8446744073709552e19 : (R)0.25, back = tiny ? (R)2.3283064365386963e-10 : (R)2;  // 2^64, 2^-32
  const R x = z.re * scale, y = z.im * scale;
  const R t = sqrt((abs(x) + hypot(x, y)) / 2);
  if (x >= 0) return complex(t * back, y / (2 * t) * back);
  return complex(abs(y) / (2 * t) * back, copysign(t, y) * back);
}
TG_C rsqrt(complex_of<R> z) { return div(complex((R)1, (R)0), sqrt(z)); }

TG_C sinh(complex_of<R> z) {
  if (z.im == 0) return complex(sinh(z.re), z.im);
  return complex(sinh(z.re) * cos(z.im), cosh(z.re) * sin(z.im));
}
TG_C cosh(complex_of<R> z) {
  if (z.im == 0) return complex(cosh(z.re), copysign((R)0, z.re) * z.im);
  return complex(cosh(z.re) * cos(z.im), sinh(z.re) * sin(z.im));
}
TG_C tanh(complex_of<R> z) {
  if (abs(z.re) > (R)20) {  // 1 to within the last bit; the imaginary part is 4 sin y cos y e^(-2|x|)
    const R e = exp(-abs(z.re));
    return complex(copysign((R)1, z.re), isfinite(z.im) ? 4 * sin(z.im) * cos(z.im) * e * e : copysign((R)0, z.im));
  }
  const R t = tan(z.im), s = sinh(z.re), beta = 1 + t * t, rho = sqrt(1 + s * s), below = 1 + beta * s * s;
  return complex(beta * rho * s / below, t / below);
}

// f(z) for circular f is -i f_h(iz), f_h the hyperbolic one (cos and acos aside)
TG_C turned(complex_of<R> z) { return complex(-z.im, z.re); }
TG_C turned_back(complex_of<R> z) { return complex(z.im, -z.re); }
TG_C sin(complex_of<R> z) { return turned_back(sinh(turned(z))); }
TG_C cos(complex_of<R> z) { return cosh(turned(z)); }
TG_C tan(complex_of<R> z) { return turned_back(tanh(turned(z))); }

TG_C asin(complex_of<R> z) {
  const complex_of<R> below = sqrt(complex(1 - z.re, -z.im)), above = sqrt(complex(1 + z.re, z.im));
  return complex(atan2(z.re, mul(below, above).re), asinh(mul(conj(below), above).im));
}
TG_C acos(complex_of<R> z) {
  const complex_of<R> below = sqrt(complex(1 - z.re, -z.im)), above = sqrt(complex(1 + z.re, z.im));
  return complex(2 * atan2(below.re, above.re), asinh(mul(conj(above), below).im));
}
TG_C acosh(complex_of<R> z) {
  const complex_of<R> below = sqrt(complex(z.re - 1, z.im)), above = sqrt(complex(z.re + 1, z.im));
  return complex(asinh(mul(conj(below), above).re), 2 * atan2(below.im, above.re));
}
TG_C asinh(complex_of<R> z) { return turned_back(asin(turned(z))); }
TG_C atanh(complex_of<R> z) {
  const R size = abs(z.re), from_one = 1 - size, squares = from_one * from_one + z.im * z.im;
  const R re = isinf(squares) ? (R)0 : log1p(4 * size / squares) / 4;
  return complex(copysign(re, z.re), atan2(2 * z.im, from_one * (1 + size) - z.im * z.im) / 2);
}
TG_C atan(complex_of<R> z) { return turned_back(atanh(turned(z))); }

// z^0 is 1; 0^w is 0 to the right of the imaginary axis; small whole powers by multiplication, exact where z^n is
TG_C pow(complex_of<R> z, complex_of<R> w) {
  const complex_of<R> one = complex((R)1, (R)0);
  if (w.re == 0 && w.im == 0) return one;
  if (z.re == 0 && z.im == 0) {
    const R other = w.re > 0 ? (R)0 : quiet_nan(w.re);
    return complex(other, other);
  }
  if (w.im == 0 && w.re == trunc(w.re) && abs(w.re) <= 64) {
    complex_of<R> result = one, square = z;
    for (int left = (int)abs(w.re); left; left >>= 1) {
      if (left & 1) result = mul(result, square);
      square = mul(square, square);
    }
    return w.re < 0 ? div(one, result) : result;
  }
  return exp(mul(w, log(z)));
}

// w log z has a large real part wherever z^w is large, and exp turns its rounding into that many wrong digits
TG_FN c64 pow(c64 z, c64 w) { return to_c64(pow(to_c128(z), to_c128(w))); }

TG_C sigmoid(complex_of<R> z) {
  const complex_of<R> one = complex((R)1, (R)0);
  const complex_of<R> e = exp(z.re < 0 ? z : neg(z)), s = div(one, add(one, e));
  return z.re < 0 ? mul(e, s) : s;
}

#undef TG_C
}  // namespace tg
