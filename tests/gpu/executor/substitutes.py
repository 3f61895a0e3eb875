"""What the instructions of a GPU become on the CPU, as LLVM IR.

A kernel's intrinsics are renamed from `llvm.nvvm.NAME` to `gpu.NAME`, so that LLVM does not take them for those of another machine, and
defined here. Inline PTX is replaced by a call of the function that PTX names. Approximations of the hardware are exact here, and numbers
are not flushed to zero. What has no substitute is refused by name, once it is known that the kernel can reach it.
"""

import re
from functools import cache

# Inline PTX and the intrinsic that does the same; operands are in the order of $1, $2, ... after the result $0. An instruction without an
# intrinsic gets a name of its own here, and its definition below.
PTX = {
    "rcp.approx.ftz.f32 $0,$1;": "rcp.approx.f",
    "rsqrt.approx.ftz.f64 $0, $1;": "rsqrt.approx.d",
    "sub.rn.f32 $0, $1, $2;": "sub.rn.f",
    "sub.rn.f64 $0, $1, $2;": "sub.rn.d",
}

FLOATS = {"f": ("float", "f32"), "f32": ("float", "f32"), "d": ("double", "f64"), "f64": ("double", "f64")}
# NAME.f and NAME.d of one to three floats: an instruction, or an intrinsic of LLVM for any machine
OPERATIONS = {
    **{f"{name}.{how}": (2, f"f{name}") for name in ("add", "sub", "mul", "div") for how in ("rn", "approx")},
    **{f"sqrt.{how}": (1, "@llvm.sqrt") for how in ("rn", "approx")},
    **{name: (1, f"@llvm.{name}") for name in ("floor", "ceil", "trunc", "fabs")},
    "fma.rn": (3, "@llvm.fma"),
    "fmin": (2, "@llvm.minnum"),
    "fmax": (2, "@llvm.maxnum"),
    "round": (1, "@llvm.rint"),
    "sin.approx": (1, "@llvm.sin"),
    "cos.approx": (1, "@llvm.cos"),
    "ex2.approx": (1, "@llvm.exp2"),
    "lg2.approx": (1, "@llvm.log2"),
}
INTEGERS = {"i": ("si", "i32"), "ui": ("ui", "i32"), "ll": ("si", "i64"), "ull": ("ui", "i64")}
REGISTERS = [f"{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"] + ["laneid"]
WAITING = ("barrier0", "bar.warp.sync", "shfl.sync.i32")  # threads wait there: checks.py turns them into calls of the runtime

BITS = """
define i32 @"gpu.read.ptx.sreg.warpsize"() alwaysinline {
  ret i32 32
}
define i32 @"gpu.d2i.hi"(double %a) alwaysinline {
  %bits = bitcast double %a to i64
  %high = lshr i64 %bits, 32
  %word = trunc i64 %high to i32
  ret i32 %word
}
define i32 @"gpu.d2i.lo"(double %a) alwaysinline {
  %bits = bitcast double %a to i64
  %word = trunc i64 %bits to i32
  ret i32 %word
}
define double @"gpu.lohi.i2d"(i32 %low, i32 %high) alwaysinline {
  %l = zext i32 %low to i64
  %h = zext i32 %high to i64
  %s = shl i64 %h, 32
  %bits = or i64 %s, %l
  %r = bitcast i64 %bits to double
  ret double %r
}
define float @"gpu.saturate.f"(float %a) alwaysinline {
  %low = call float @llvm.maxnum.f32(float %a, float 0.0)
  %r = call float @llvm.minnum.f32(float %low, float 1.0)
  ret float %r
}
declare float @llvm.maxnum.f32(float, float)
declare float @llvm.minnum.f32(float, float)
"""


def _function(name, result, parameters, *body):
    listed = ", ".join(f"{kind} %{letter}" for kind, letter in zip(parameters, "abc"))
    lines = "".join(f"  {line}\n" for line in body)
    return f'define {result} @"gpu.{name}"({listed}) alwaysinline {{\n{lines}  ret {result} %r\n}}\n'


def _operation(name, count, what, kind, short):
    values = ", ".join(f"%{letter}" for letter in "abc"[:count])
    if what[0] != "@":
        return _function(name, kind, [kind] * count, f"%r = {what} {kind} {values}")
    values = ", ".join(f"{kind} %{letter}" for letter in "abc"[:count])
    declared = f"declare {kind} {what}.{short}({', '.join([kind] * count)})\n"
    return declared + _function(name, kind, [kind] * count, f"%r = call {kind} {what}.{short}({values})")


# Where the nearest float is on the wrong side of the exact number for a direction, and the step to the right one.
DIRECTIONS = {
    "rz": "%ab = call double @llvm.fabs.f64(double %back)|%ae = call double @llvm.fabs.f64(double %exact)|"
    "%wrong = fcmp ogt double %ab, %ae|%step = add i32 0, -1",
    "rm": "%wrong = fcmp ogt double %back, %exact|%step = select i1 %negative, i32 1, i32 -1",
    "rp": "%wrong = fcmp olt double %back, %exact|%step = select i1 %negative, i32 -1, i32 1",
}


def _directed(name, count, exact):
    """Operations in float32 that do not round to the nearest, by float64."""
    for how, rule in DIRECTIONS.items():
        wide = [f"%{letter}w = fpext float %{letter} to double" for letter in "abc"[:count]]
        near = ["%near = fptrunc double %exact to float", "%back = fpext float %near to double", "%bits = bitcast float %near to i32"]
        near += ["%negative = icmp slt i32 %bits, 0", *rule.split("|"), "%stepped = add i32 %bits, %step"]
        right = ["%right = select i1 %wrong, i32 %stepped, i32 %bits", "%r = bitcast i32 %right to float"]
        yield _function(f"{name}.{how}.f", "float", ["float"] * count, *wide, f"%exact = {exact}", *near, *right)


def _conversions(letter, kind, short):
    for integer, (sign, bits) in INTEGERS.items():
        yield _function(f"{integer}2{letter}.rn", kind, [bits], f"%r = {sign}tofp {bits} %a to {kind}")
        for how, rounding in (("rn", "rint"), ("rz", "trunc"), ("rm", "floor"), ("rp", "ceil")):
            to = f"llvm.fpto{sign}.sat.{bits}.{short}"
            yield f"declare {kind} @llvm.{rounding}.{short}({kind})\ndeclare {bits} @{to}({kind})\n"
            whole = f"%w = call {kind} @llvm.{rounding}.{short}({kind} %a)"
            yield _function(f"{letter}2{integer}.{how}", bits, [kind], whole, f"%r = call {bits} @{to}({kind} %w)")


def _atomics():
    """By the names that numba-cuda gives them."""
    for kind, short in (("float", "f32"), ("double", "f64")):
        yield _function(f"atomic.load.add.{short}.p0{short}", kind, ["ptr", kind], f"%r = atomicrmw fadd ptr %a, {kind} %b seq_cst")


@cache
def definitions():
    """The IR of all substitutes, and the registers of the thread that runs."""
    parts = [BITS, f"@gpu_registers = global [{len(REGISTERS)} x i32] zeroinitializer, align 16\n", *_atomics()]
    for i, name in enumerate(REGISTERS):
        place = f"getelementptr (i8, ptr @gpu_registers, i64 {4 * i})"
        parts.append(_function(f"read.ptx.sreg.{name}", "i32", [], f"%r = load i32, ptr {place}, align 4, !invariant.load !0"))
    for letter, (kind, short) in FLOATS.items():
        parts += [_operation(f"{name}.{letter}", count, what, kind, short) for name, (count, what) in OPERATIONS.items()]
        root = f"call {kind} @llvm.sqrt.{short}({kind} %a)"
        parts.append(_function(f"rsqrt.approx.{letter}", kind, [kind], f"%s = {root}", f"%r = fdiv {kind} 1.0, %s"))
        parts += [_function(f"rcp.{how}.{letter}", kind, [kind], f"%r = fdiv {kind} 1.0, %a") for how in ("rn", "approx")]
        if len(letter) == 1:
            parts += _conversions(letter, kind, short)
    parts.append("declare double @llvm.fabs.f64(double)\ndeclare double @llvm.fma.f64(double, double, double)\n")
    for name in ("add", "sub", "mul"):
        parts += _directed(name, 2, f"f{name} double %aw, %bw")
    parts += _directed("fma", 3, "call double @llvm.fma.f64(double %aw, double %bw, double %cw)")
    parts.append(_function("d2f.rn", "float", ["double"], "%r = fptrunc double %a to float"))
    text = "".join(parts)
    declared = dict.fromkeys(re.findall(r"^declare .*$", text, re.MULTILINE))
    return "\n".join([re.sub(r"^declare .*\n", "", text, flags=re.MULTILINE), *declared, "!0 = !{}"])


def renamed(text):
    """IR for a GPU as IR that calls the substitutes."""
    text = re.sub(r'@"?llvm\.nvvm\.([\w.]+)"?', lambda found: f'@"gpu.{found[1].replace(".ftz", "")}"', text)
    for name in WAITING:  # which LLVM must not move into a branch or out of it
        text = re.sub(rf'^(declare .*@"gpu\.{re.escape(name)}"\(.*?\))', r"\1 convergent nounwind", text, flags=re.MULTILINE)
    return re.sub(r'asm (?:sideeffect )?"([^"]*)", "[^"]*"', _of_ptx, text)


def _of_ptx(found):
    return f'@"gpu.{PTX[found[1]]}"' if found[1] in PTX else found[0]


def declarations(text):
    """Declarations of what inline PTX was replaced by."""
    for name in set(PTX.values()):
        kind = FLOATS[name.rpartition(".")[2]][0]
        if f'@"gpu.{name}"' in text and not re.search(rf'^declare .*@"gpu\.{re.escape(name)}"', text, re.MULTILINE):
            yield f'declare {kind} @"gpu.{name}"({", ".join([kind] * (2 if name.startswith("sub") else 1))})\n'
