"""Break one convention of the code at a time and see whether a test notices: `python tests/mutants.py [name ...]`.

Every mutant is applied to a copy of the repository; the tests named beside it must fail there. Exit code 1 if one lives.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("pipeline", "xr2ct", "tests", "resources", "pyproject.toml", "config.yaml", "Snakefile")


@dataclass(frozen=True)
class Mutant:
    """Replace `old` (which must occur) by `new` in `file`; `tests` are run against it."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant(
        "image axes swapped: the stored image is transposed",
        "pipeline/projectors/reference.py",
        "image.reshape(seen.view.shape[::-1]).T",
        "image.reshape(seen.view.shape)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "image axes swapped: x and z of the volume",
        "pipeline/projectors/reference.py",
        "xyz[..., ::-1].reshape",
        "xyz.reshape",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "grid size order reversed",
        "pipeline/projectors/reference.py",
        "size = np.array(padded.shape[::-1])",
        "size = np.array(padded.shape)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "half voxel dropped: centre of the cube",
        "pipeline/resample.py",
        "spacing_mm * (cube - 1) / 2",
        "spacing_mm * cube / 2",
        "tests/pipeline/test_resample.py",
    ),
    Mutant(
        "half voxel dropped: isocentre of the simulator",
        "pipeline/geometry.py",
        "((np.array(shape[::-1]) - 1) / 2)",
        "(np.array(shape[::-1]) / 2)",
        "tests/pipeline/test_project.py",
    ),
    Mutant(
        "half pixel dropped: middle of the detector",
        "pipeline/geometry.py",
        "(offset_u - (columns - 1) / 2)",
        "(offset_u - columns / 2)",
        "tests/pipeline/test_geometry.py",
    ),
    Mutant(
        "half pixel dropped: axis sum",
        "pipeline/projectors/parallel.py",
        "_lerp(shadow, origin[row], step_v[row], rows)",
        "_lerp(shadow, origin[row] + 0.5, step_v[row], rows)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "axis sum: a grid half a voxel off counts as on the pixels",
        "pipeline/projectors/parallel.py",
        "if pace and off_rows < 1e-6 and",
        "if pace and off_rows < 0.6 and",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "u and v swapped in the projection matrix",
        "pipeline/geometry.py",
        "np.stack([self.step_u_mm, self.step_v_mm, self.origin_mm - source], axis=1)",
        "np.stack([self.step_v_mm, self.step_u_mm, self.origin_mm - source], axis=1)",
        "tests/pipeline/test_geometry.py",
    ),
    Mutant(
        "u and v swapped in detector_mm",
        "pipeline/geometry.py",
        "np.stack([self.origin_mm, self.step_v_mm, self.step_u_mm])",
        "np.stack([self.origin_mm, self.step_u_mm, self.step_v_mm])",
        "tests/pipeline/test_project.py",
    ),
    Mutant(
        "PA made AP",
        "pipeline/geometry.py",
        '"PA": (0.0, 0.0)',
        '"PA": (180.0, 0.0)',
        "tests/pipeline/test_geometry.py",
    ),
    Mutant(
        "left and right mirrored in the file's orientation",
        "pipeline/resample.py",
        "turned = nib.apply_orientation(data, orientation)",
        "turned = nib.apply_orientation(data, orientation)[::-1]",
        "tests/pipeline/test_resample.py",
    ),
    Mutant(
        "left and right mirrored on the detector",
        "pipeline/geometry.py",
        "[-1, 0, 0], [0, 0, -1]])",
        "[1, 0, 0], [0, 0, -1]])",
        "tests/pipeline/test_geometry.py",
    ),
    Mutant(
        "step length forgotten",
        "pipeline/projectors/reference.py",
        "image[rays] = total * path_mm[rays]",
        "image[rays] = total",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "slice spacing forgotten in the axis sum",
        "pipeline/projectors/parallel.py",
        "_on_detector(sums[axis], one, axis), _step_mm(one, axis), out",
        "_on_detector(sums[axis], one, axis), np.float32(1), out",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "mu times ten",
        "pipeline/physics/monoenergetic.py",
        "float(np.exp(log_mu)) / 10.0",
        "float(np.exp(log_mu))",
        "tests/pipeline/test_monoenergetic.py",
    ),
    Mutant(
        "slope dropped",
        "pipeline/read/values.py",
        "slope, intercept = int(stored.slope), int(stored.intercept)",
        "slope, intercept = 1, int(stored.intercept)",
        "tests/pipeline/test_read_nifti.py",
    ),
    Mutant(
        "intercept dropped",
        "pipeline/read/values.py",
        "astype(np.int64) * slope + intercept",
        "astype(np.int64) * slope",
        "tests/pipeline/test_read_nifti.py",
    ),
    Mutant(
        "label and CT resampled with different affines",
        "pipeline/resample.py",
        "shifted[:3, 3] = (affine @ np.append([float(side.start) for side in box], 1.0))[:3]",
        "shifted[:3, 3] = affine[:3, 3]",
        "tests/pipeline/test_resample.py",
    ),
    Mutant(
        "view order swapped",
        "pipeline/project.py",
        "ct_hu, affine, views, beam=simulator.beam, backend=simulator.backend, energy_kev=simulator.energy_kev",
        "ct_hu, affine, views[::-1], beam=simulator.beam, backend=simulator.backend, energy_kev=simulator.energy_kev",
        "tests/pipeline/test_project.py",
    ),
    Mutant(
        "CT and labels deformed by different fields",
        "pipeline/deform.py",
        "moved = map_coordinates(label, at,",
        "moved = map_coordinates(label, at + 1.0,",
        "tests/pipeline/test_deform.py",
    ),
    Mutant(
        "derived case rotated about a corner",
        "pipeline/deform.py",
        "centred = grid - grid.reshape(3, -1).mean(axis=1)[:, None, None, None]",
        "centred = grid",
        "tests/pipeline/test_deform.py",
    ),
    Mutant(
        "derived CT interpolated linearly",
        "pipeline/deform.py",
        "ct = map_coordinates(changed, at, order=3",
        "ct = map_coordinates(changed, at, order=1",
        "tests/pipeline/test_deform.py",
    ),
    Mutant(
        "source affine replaced by the cube's",
        "pipeline/shard.py",
        'source_affine=np.array(record["source_affine"])',
        'source_affine=np.array(record["affine"])',
        "tests/test_contract.py",
    ),
    Mutant(
        "Joseph's columns: a ray's share of its two rows exchanged",
        "pipeline/kernels/columns_joseph.c",
        "fmaf(share, far[lane], fmaf(rest, near[lane], line[lane]))",
        "fmaf(rest, far[lane], fmaf(share, near[lane], line[lane]))",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns: voxels beyond the end are read as if they were there",
        "pipeline/kernels/columns_joseph.c",
        "resample_sixteen(slab, column, count, &at, row, rows + v, narrow, halves, 0);",
        "resample_sixteen(slab, column, count, &at, row, rows + v, narrow, halves, 1);",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "the tube of a cone moves with a shift of the grid that its pixels do not make",
        "pipeline/projectors/rays.py",
        "_without_dust(source) if parallel else source + shift,",
        "_without_dust(source) if parallel else source - shift,",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "rays of any pose: a volume one voxel thin has an inside",
        "pipeline/kernels/rays.c",
        "if (low > high || (level",
        "if ((level",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns: axes a and b swapped",
        "pipeline/projectors/columns.py",
        "return np.where(along_b, b, a), np.where(along_b, a, b)",
        "return np.where(along_b, a, b), np.where(along_b, b, a)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns: the next voxel column forgotten",
        "pipeline/kernels/columns_joseph.c",
        "mix_rows(near, near + row,",
        "mix_rows(near, near,",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns: half a voxel along the column",
        "pipeline/kernels/columns_joseph.c",
        "Span span = {.c0 = (float)c0",
        "Span span = {.c0 = (float)(c0 + 0.5)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns: cone rays of a column kept parallel",
        "pipeline/projectors/columns.py",
        'paths["c11"] = seen.step_v[axis] / pace',
        'paths["c11"] = 0 * seen.step_v[axis] / pace',
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns: image transposed",
        "pipeline/kernels/columns.h",
        "image[((int64_t)m * n_v + v) * n_u + u]",
        "image[((int64_t)m * n_v + (n_v - 1 - v)) * n_u + u]",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns, AVX-512: interpolation mirrored",
        "pipeline/kernels/columns_joseph.c",
        "_mm512_fmadd_ps(at->part, _mm512_sub_ps(there, here), here);",
        "_mm512_fmadd_ps(at->part, _mm512_sub_ps(here, there), there);",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns, other machines: fraction dropped",
        "pipeline/kernels/columns_joseph.c",
        "float sample = LERP(column[j], column[j + 1], g);",
        "float sample = column[j];",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns, AVX-512: one register where two are needed",
        "pipeline/kernels/columns_joseph.c",
        "#define NARROW 0.93f",
        "#define NARROW 1.9f",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns, AVX-512: what lies before and behind a column is read",
        "pipeline/kernels/columns_joseph.c",
        "_mm512_cmplt_epu32_mask(near, size)",
        "(__mmask16)0xffff",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns, AVX-512: what lies behind the second register is read",
        "pipeline/kernels/columns_joseph.c",
        "_mm512_cmplt_epu32_mask(far, size)",
        "(__mmask16)0xffff",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns, AVX-512: the columns after the last four left out",
        "pipeline/kernels/columns_joseph.c",
        "for (; first <= last; first++, rows += row)",
        "for (; first < last; first++, rows += row)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns, AVX-512: a ray on its own takes one voxel column",
        "pipeline/kernels/columns_joseph.c",
        "__m512 low = _mm512_fmadd_ps(f, _mm512_sub_ps(b, a), a), high = low;",
        "__m512 low = a, high = low;",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns: an old row behind the last one",
        "pipeline/kernels/columns_joseph.c",
        "i <= crossing->highest + 1;)",
        "i <= crossing->highest;)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph's columns: pixels before the first whole sixteen",
        "pipeline/kernels/columns_joseph.c",
        "span.begin = span.begin / LANES * LANES",
        "span.begin = (span.begin + LANES - 1) / LANES * LANES",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "step length per pixel: the middle of the column for all",
        "pipeline/kernels/columns.h",
        "sqrt(s0[n] + (s1[n] + s2[n] * (double)v) * (double)v)",
        "sqrt(s0[n] + (s1[n] + s2[n] * (double)n_v) * (double)n_v)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "materials in one pass: air and bone swapped",
        "pipeline/kernels/columns_joseph.c",
        "decode_materials(hu, seen, volume->code, held[i + 2], to, to + plane, to + 2 * plane);",
        "decode_materials(hu, seen, volume->code, held[i + 2], to + 2 * plane, to + plane, to);",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "materials in one pass: a column with bone said to hold none",
        "pipeline/kernels/columns_joseph.c",
        "(highest > bone_from ? 4 : 0)",
        "(lowest > bone_from ? 4 : 0)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Siddon's columns: second voxel of a slab forgotten",
        "pipeline/kernels/columns_siddon.c",
        "                        segments = 2;",
        "                        segments = 1;",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Siddon's columns: half a voxel along the column",
        "pipeline/kernels/columns_siddon.c",
        "float a0 = (float)(path->c00 + path->c01 * from + 0.5)",
        "float a0 = (float)(path->c00 + path->c01 * from)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph, any pose: axes o and c swapped",
        "pipeline/kernels/rays.c",
        "axis_o = (d + 1) % 3, axis_c = (d + 2) % 3, lanes",
        "axis_o = (d + 2) % 3, axis_c = (d + 1) % 3, lanes",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Joseph, any pose: samples over the border dropped",
        "pipeline/kernels/rays.c",
        "clip(c0[ray], c1[ray], -1, high_c, outer[lane]",
        "clip(c0[ray], c1[ray], 0, high_c, outer[lane]",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "Siddon, any pose: steps towards the tube",
        "pipeline/kernels/rays.c",
        "step[n] = slope[n] >= 0 ? 1 : -1;",
        "step[n] = slope[n] >= 0 ? -1 : 1;",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "parallel sheets: weights of the two columns swapped",
        "pipeline/kernels/parallel.c",
        "__m512 part = _mm512_set1_ps(f), rest = _mm512_set1_ps(1 - f);",
        "__m512 part = _mm512_set1_ps(1 - f), rest = _mm512_set1_ps(f);",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "parallel sheets: a sample on a tile's border counted twice",
        "pipeline/kernels/parallel.c",
        "double k = ceil((border - o0) / o1);",
        "double k = ceil((border - 0.5 - o0) / o1) + (border > 0);",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "axis sums: x and y swapped",
        "pipeline/projectors/parallel.py",
        "return {0: along_x, 1: along_y}",
        "return {0: along_y, 1: along_x}",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "reordered volume: rows of a square swapped",
        "pipeline/kernels/memory.c",
        "s[n + 4] = _mm_unpackhi_epi16(r[n], r[n + 4]);",
        "s[n + 4] = _mm_unpackhi_epi16(r[n + 4], r[n]);",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "detector kernel: soft tissue attenuates as bone",
        "pipeline/kernels/detector.c",
        "fmaf(path[1][lane], m1, path[0][lane] * m0)",
        "fmaf(path[1][lane], m2, path[0][lane] * m0)",
        "tests/pipeline/test_detector.py",
    ),
    Mutant(
        "areal density in g/mm2",
        "pipeline/projectors/from_hu.py",
        "areal *= np.float32(0.1)",
        "areal *= np.float32(1.0)",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "photons' energies forgotten in the noise",
        "pipeline/physics/detector.py",
        "spectrum.energy_kev**2])",
        "spectrum.energy_kev])",
        "tests/pipeline/test_detector.py",
    ),
    Mutant(
        "detector rolled the other way",
        "pipeline/geometry.py",
        "sine_cosine[1] * _STEP_U + sine_cosine[0] * _STEP_V, sine_cosine[1] * _STEP_V - sine_cosine[0] * _STEP_U",
        "sine_cosine[1] * _STEP_U - sine_cosine[0] * _STEP_V, sine_cosine[1] * _STEP_V + sine_cosine[0] * _STEP_U",
        "tests/pipeline/test_geometry.py",
    ),
    Mutant(
        "offset of the detector with the wrong sign",
        "pipeline/geometry.py",
        "(offset_u - (columns - 1) / 2) * step_u",
        "(-offset_u - (columns - 1) / 2) * step_u",
        "tests/pipeline/test_geometry.py",
    ),
    Mutant(
        "Monte Carlo: scattered photons land mirrored",
        "pipeline/physics/transport.py",
        "u, v = ((uv[on] + 0.5) / [columns, rows] * bins[::-1]).astype(int).T",
        "u, v = ((columns - 0.5 - uv[on]) / [columns, rows] * bins[::-1]).astype(int).T",
        "tests/pipeline/test_transport.py",
    ),
    Mutant(
        "Monte Carlo's coarse density: half a block",
        "pipeline/physics/scatter.py",
        "(np.array(block[::-1]) - 1) / 2",
        "np.array(block[::-1]) / 2",
        "tests/pipeline/test_scatter.py",
    ),
    Mutant(
        "Monte Carlo's coarse density: axes swapped",
        "pipeline/physics/scatter.py",
        "np.diag([*block[::-1], 1.0])",
        "np.diag([*block, 1.0])",
        "tests/pipeline/test_scatter.py",
    ),
    Mutant(
        "Monte Carlo: photons start half a voxel aside",
        "pipeline/physics/transport.py",
        "x, y, z = (position + np.float32(0.5))",
        "x, y, z = (position + np.float32(0.0))",
        "tests/pipeline/test_transport.py",
    ),
    Mutant(
        "scatter kernel: half a pixel",
        "pipeline/physics/scatter.py",
        "np.arange(pixels)[:, None] - 0.5)",
        "np.arange(pixels)[:, None])",
        "tests/pipeline/test_scatter.py",
    ),
    Mutant(
        "grid: scatter not relative to the open field behind it",
        "pipeline/physics/detector.py",
        "scatter * (through.scatter / through.primary)",
        "scatter * through.scatter",
        "tests/pipeline/test_detector.py",
    ),
    Mutant(
        "grid: takes no photons",
        "pipeline/physics/detector.py",
        "photons = photons * get_grid(grid).primary",
        "photons = photons * 1.0",
        "tests/pipeline/test_detector.py",
    ),
    Mutant(
        "materials in one pass: a column beyond air's bound called air",
        "pipeline/kernels/columns_joseph.c",
        "int only_air = highest <= air_from",
        "int only_air = highest <= air_until",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "MetaImage: matrix transposed",
        "pipeline/read/mha.py",
        "np.reshape(matrix, (rank, rank))[:3, :3].T * spacing[:3]",
        "np.reshape(matrix, (rank, rank))[:3, :3] * spacing[:3]",
        "tests/pipeline/test_read_mha.py",
    ),
    Mutant(
        "random angles of a view drawn alike",
        "pipeline/sweeps.py",
        'view["name"], key)) for',
        'view["name"])) for',
        "tests/pipeline/test_sweeps.py",
    ),
    Mutant(
        "Siddon's columns: the border a ray meets last",
        "pipeline/kernels/columns_siddon.c",
        "float border = in > out ? in : out;",
        "float border = in > out ? out : in;",
        "tests/pipeline/test_projectors.py",
    ),
    Mutant(
        "detector kernel: both moments of the first weight",
        "pipeline/kernels/detector.c",
        "two[lane] = fmaf(w2, left, two[lane]);",
        "two[lane] = fmaf(w1, left, two[lane]);",
        "tests/pipeline/test_detector.py",
    ),
    Mutant(
        "lone CT: its place does not decide its chance",
        "pipeline/one_volume.py",
        ".tobytes() + affine.tobytes())",
        ".tobytes())",
        "tests/pipeline/test_one_volume.py",
    ),
    Mutant(
        "MetaImage: its voxels not watched",
        "pipeline/parts.py",
        "return list(dict.fromkeys([path, voxel_file(path)]))",
        "return [path]",
        "tests/pipeline/test_parts.py",
    ),
    Mutant(
        "learning: the kept position forgets the first layer",
        "xr2ct/models/spider.py",
        "[self.position.parameters_flat, *self.first_position.parameters()]",
        "[self.position.parameters_flat]",
        "tests/xr2ct/test_spider.py -k computed_once",
    ),
    Mutant(
        "learning: an absent structure counts as not annotated",
        "xr2ct/models/supervision.py",
        "label_status[list(self.ids)] > 0",
        "label_status[list(self.ids)] > 1",
        "tests/xr2ct/test_supervision.py",
    ),
    Mutant(
        "learning: voxels are drawn by the first case's labels",
        "xr2ct/models/spider.py",
        "[example.case.label for example in examples], random)",
        "[example.case.label for example in examples[:1]], random)",
        "tests/xr2ct/test_spider.py -k labels_of_every",
    ),
    Mutant(
        "learning: the X-rays move with the grid",
        "xr2ct/moved_grid.py",
        "affine[:3, 3] += affine[:3, :3] @ shift[::-1]",
        "affine[:3, 3] -= affine[:3, :3] @ shift[::-1]",
        "tests/xr2ct/test_moved_grid.py",
    ),
    Mutant(
        "learning: a moved grid's step in the wrong order",
        "xr2ct/moved_grid.py",
        "affine[:3, :3] @ shift[::-1]",
        "affine[:3, :3] @ shift",
        "tests/xr2ct/test_moved_grid.py",
    ),
    Mutant(
        "learning: a moved grid knows labels beyond the old one",
        "xr2ct/moved_grid.py",
        "constant_values=IGNORE",
        "constant_values=0",
        "tests/xr2ct/test_moved_grid.py",
    ),
    Mutant(
        "learning: the gradient forgets that a group's mean moves",
        "xr2ct/group_norm.py",
        "constant = -mean * by_value - scale * over_group(sum_p)",
        "constant = -mean * by_value",
        "tests/xr2ct/test_group_norm.py",
    ),
    Mutant(
        "learning: the gradient of the table begins with what lay in memory",
        "xr2ct/kernels/hash_grid.c",
        "memset(job->table + level->offset * job->features, 0, (size_t)(level->entries * job->features) * sizeof(float));",
        "(void)level;",
        "tests/xr2ct/test_encoding_backends.py",
    ),
    Mutant(
        "learning: common intensities count most",
        "xr2ct/models/spider.py",
        "np.where(there, frequency, 1) ** -power",
        "np.where(there, frequency, 1) ** power",
        "tests/xr2ct/test_spider.py",
    ),
    Mutant(
        "learning: the weight of an intensity is that of the next bin",
        "xr2ct/models/spider.py",
        "(target * INTENSITY_BINS).long().clamp(",
        "(target * INTENSITY_BINS + 1).long().clamp(",
        "tests/xr2ct/test_spider.py",
    ),
    Mutant(
        "learning: a voxel of a class not annotated is no error of the others",
        "xr2ct/losses.py",
        "* (label != IGNORE)[..., None]",
        "* known[..., None]",
        "tests/xr2ct/test_losses.py",
    ),
    Mutant(
        "learning: the best state without the average of the parameters",
        "xr2ct/descent.py",
        "with shown(state.model, state.average):",
        "with shown(state.model, None):",
        "tests/xr2ct/test_train.py -k best_state",
    ),
    Mutant(
        "learning: statistics of batch normalisation are not averaged",
        "xr2ct/average.py",
        "if value.is_floating_point()}",
        "if False}",
        "tests/xr2ct/test_train.py -k statistics",
    ),
    Mutant(
        "learning: weight decay on the hash table",
        "xr2ct/training_settings.py",
        '"params": tables, "weight_decay": 0.0',
        '"params": tables, "weight_decay": settings.weight_decay',
        "tests/xr2ct/test_spider.py -k weight_decay",
    ),
    Mutant(
        "learning: a gradient that a process lacks counts as one",
        "xr2ct/distributed.py",
        "torch.zeros_like(parameter)",
        "torch.ones_like(parameter)",
        "tests/xr2ct/test_distributed.py -k not_need",
    ),
    Mutant(
        "learning: a structure the model does not know is watched",
        "xr2ct/training_log.py",
        "if value and name in known]",
        "if value]",
        "tests/xr2ct/test_watching.py -k dice",
    ),
    Mutant(
        "two images: half a pixel at the border not seen",
        "xr2ct/image_fit.py",
        "(at >= -0.5) & (at <= old - 0.5)",
        "(at >= 0) & (at <= old - 1)",
        "tests/xr2ct/test_two_images_geometry.py",
    ),
    Mutant(
        "two images: a parallel matrix keeps its factor",
        "xr2ct/geometry_file.py",
        "matrix[2, 3] if is_parallel(matrix) else sign for",
        "sign for",
        "tests/xr2ct/test_two_images_geometry.py",
    ),
    Mutant(
        "two images: flipped along the other axis",
        "xr2ct/two_images.py",
        "axis=1 - axis",
        "axis=axis",
        "tests/xr2ct/test_two_images.py -k columns_are_turned",
    ),
)


def lives(mutant: Mutant) -> tuple[bool, str]:
    """Whether the tests stay green on a copy with the mutant in it, and the last line they print."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in COPIED:
            source, target = ROOT / name, Path(scratch) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        path = Path(scratch) / mutant.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.old) != 1:
            return True, f"cannot be applied: {mutant.old!r} occurs {text.count(mutant.old)} times in {mutant.file}"
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        if path.suffix in (".c", ".h"):
            build = ["-c", "from setuptools import setup; setup()", "-q", "build_ext", "--inplace"]
            subprocess.run([sys.executable, *build], cwd=scratch, capture_output=True, check=True)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()],
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return done.returncode != 1, (failed or done.stdout.strip().splitlines() or ["no output"])[-1][:110]


def main(names: list[str]) -> int:
    """Try the mutants whose name holds one of `names` (all without)."""
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lives, chosen))
    for mutant, (alive, line) in zip(chosen, results, strict=True):
        print(f"{'LIVES ' if alive else 'killed'}  {mutant.name:<62} {line}")
    survivors = sum(alive for alive, _ in results)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed in {time.monotonic() - begin:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
