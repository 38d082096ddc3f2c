// The tracer for `geoseg/vectorize/native.py`: plain C, called by ctypes, which releases
// Python's lock.
#include <cstdint>
#include <memory>

#include "../plain_c.h"
#include "batch.h"
#include "join.h"
#include "moments.h"
#include "scan.h"
#include "spill.h"
#include "tracer.h"

using namespace geoseg;
using namespace geoseg::vectorize;

GEOSEG_API const char* geoseg_error() { return error.c_str(); }

GEOSEG_API int geoseg_tracer_new(const TracerOptions* options, const char* folder,
                                 Tracer** tracer) {
  return guarded([&] {
    const ScanKernels* kernels = choose_scan_kernels();
    if (kernels == nullptr) refuse_instructions();
    *tracer = new Tracer(*options, *kernels, folder);
  });
}

// Rows must lie one behind the other. `read` is how many were taken; the others are to be
// given again once batches were.
GEOSEG_API int geoseg_tracer_feed(Tracer* tracer, const uint8_t* classes, const uint8_t* confidence,
                                  int64_t rows, int64_t* read) {
  return guarded([&] { *read = tracer->feed(classes, confidence, rows); });
}

GEOSEG_API int geoseg_tracer_finish(Tracer* tracer) {
  return guarded([&] { tracer->finish(); });
}

// The next batch, to be freed by the caller; nullptr if there is none.
GEOSEG_API Batch* geoseg_tracer_take(Tracer* tracer, bool also_unfinished) {
  return tracer->writer().take(also_unfinished).release();
}

GEOSEG_API void geoseg_tracer_free(Tracer* tracer) { delete tracer; }

struct Table {
  const void* rows;
  int64_t count;
};

// The pieces, runs, arms, inner rings and vertices that the part leaves to the join; they
// go with the tracer.
GEOSEG_API void geoseg_tracer_open(const Tracer* tracer, Table tables[5]) {
  const auto table = [](const auto& rows) { return Table{rows.data(), int64_t(rows.size())}; };
  const OpenPieces& open = tracer->open();
  tables[0] = table(open.pieces);
  tables[1] = table(open.runs);
  tables[2] = table(open.arms);
  tables[3] = table(open.rings);
  tables[4] = table(open.vertices);
}

GEOSEG_API int geoseg_join_new(const Extent* region, const Transform* transform,
                               const char* folder, Join** join) {
  return guarded([&] { *join = new Join(*region, *transform, folder); });
}

GEOSEG_API int geoseg_join_begin_row(Join* join, int32_t row, int32_t height) {
  return guarded([&] { join->begin_row(row, height); });
}

// `tables` are those of geoseg_tracer_open.
GEOSEG_API int geoseg_join_add(Join* join, const Extent* part, const Table tables[5]) {
  return guarded([&] {
    join->add(*part, static_cast<const Piece*>(tables[0].rows), tables[0].count,
              static_cast<const Run*>(tables[1].rows), tables[1].count,
              static_cast<const Arm*>(tables[2].rows), tables[2].count,
              static_cast<const InnerRing*>(tables[3].rows), tables[3].count,
              static_cast<const Vertex*>(tables[4].rows), tables[4].count);
  });
}

GEOSEG_API int geoseg_join_end_row(Join* join) {
  return guarded([&] { join->end_row(); });
}

// A null pointer where there is no more of the row.
GEOSEG_API int geoseg_join_take(Join* join, Batch** batch) {
  return guarded([&] { *batch = join->take().release(); });
}

GEOSEG_API void geoseg_join_free(Join* join) { delete join; }

struct BatchView {
  int64_t count, size;
  const void *wkb, *offsets, *class_id, *pixels, *confidence_sum, *col_sum, *row_sum, *bounds,
      *first_col, *last_col;
};

GEOSEG_API void geoseg_batch_view(const Batch* batch, BatchView* view) {
  *view = {batch->count,   batch->size,           batch->wkb,     batch->offsets, batch->class_id,
           batch->pixels,  batch->confidence_sum, batch->col_sum, batch->row_sum, batch->bounds,
           batch->first_col, batch->last_col};
}

GEOSEG_API void geoseg_batch_free(Batch* batch) { recycle(std::unique_ptr<Batch>(batch)); }

// `offsets`, count + 1 of them, say where in `wkb` each polygon begins.
GEOSEG_API int geoseg_measure_polygons(const uint8_t* wkb, const int32_t* offsets, int64_t count,
                                       Moments* moments) {
  return guarded([&] {
    for (int64_t i = 0; i < count; i++)
      moments[i] = measure_polygon(wkb + offsets[i], wkb + offsets[i + 1]);
  });
}
