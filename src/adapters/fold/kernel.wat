;; The arithmetic of a fold: rows of a float32 weight become float64, products of an adapter's factors are
;; added to them, and the sums become float32 again. With SIMD, four rows and four columns at a time, it takes
;; a fraction of what JavaScript does, and unlike a call of ONNX Runtime it copies nothing.
;; `npm run wasm` makes kernel.ts of it.
(module
  (memory (export "memory") 1)

  ;; float32 at $from as float64 at $to. Gives the sum of squares.
  (func (export "widen") (param $from i32) (param $to i32) (param $count i32) (result f64)
    (local $end i32) (local $pairsEnd i32) (local $a v128) (local $b v128)
    (local $sumA v128) (local $sumB v128) (local $value f64) (local $sum f64)
    (local.set $end (i32.add (local.get $from) (i32.shl (local.get $count) (i32.const 2))))
    (local.set $pairsEnd
      (i32.add (local.get $from) (i32.shl (i32.and (local.get $count) (i32.const -4)) (i32.const 2))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $from) (local.get $pairsEnd)))
        (local.set $a (f64x2.promote_low_f32x4 (v128.load64_zero (local.get $from))))
        (local.set $b (f64x2.promote_low_f32x4 (v128.load64_zero offset=8 (local.get $from))))
        (v128.store (local.get $to) (local.get $a))
        (v128.store offset=16 (local.get $to) (local.get $b))
        (local.set $sumA (f64x2.add (local.get $sumA) (f64x2.mul (local.get $a) (local.get $a))))
        (local.set $sumB (f64x2.add (local.get $sumB) (f64x2.mul (local.get $b) (local.get $b))))
        (local.set $from (i32.add (local.get $from) (i32.const 16)))
        (local.set $to (i32.add (local.get $to) (i32.const 32)))
        (br $next)))
    (local.set $sum (call $lanes (f64x2.add (local.get $sumA) (local.get $sumB))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $from) (local.get $end)))
        (local.set $value (f64.promote_f32 (f32.load (local.get $from))))
        (f64.store (local.get $to) (local.get $value))
        (local.set $sum (f64.add (local.get $sum) (f64.mul (local.get $value) (local.get $value))))
        (local.set $from (i32.add (local.get $from) (i32.const 4)))
        (local.set $to (i32.add (local.get $to) (i32.const 8)))
        (br $next)))
    (local.get $sum))

  ;; float64 at $from, rounded once, over the float32 at $to. Gives the sum of squares of the differences.
  (func (export "narrow") (param $from i32) (param $to i32) (param $count i32) (result f64)
    (local $end i32) (local $pairsEnd i32) (local $a v128) (local $b v128) (local $changeA v128)
    (local $changeB v128) (local $sumA v128) (local $sumB v128) (local $value f64) (local $change f64)
    (local $sum f64)
    (local.set $end (i32.add (local.get $to) (i32.shl (local.get $count) (i32.const 2))))
    (local.set $pairsEnd
      (i32.add (local.get $to) (i32.shl (i32.and (local.get $count) (i32.const -4)) (i32.const 2))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $to) (local.get $pairsEnd)))
        (local.set $a (v128.load (local.get $from)))
        (local.set $b (v128.load offset=16 (local.get $from)))
        (local.set $changeA
          (f64x2.sub (local.get $a) (f64x2.promote_low_f32x4 (v128.load64_zero (local.get $to)))))
        (local.set $changeB
          (f64x2.sub (local.get $b) (f64x2.promote_low_f32x4 (v128.load64_zero offset=8 (local.get $to)))))
        (local.set $sumA
          (f64x2.add (local.get $sumA) (f64x2.mul (local.get $changeA) (local.get $changeA))))
        (local.set $sumB
          (f64x2.add (local.get $sumB) (f64x2.mul (local.get $changeB) (local.get $changeB))))
        (v128.store64_lane 0 (local.get $to) (f32x4.demote_f64x2_zero (local.get $a)))
        (v128.store64_lane offset=8 0 (local.get $to) (f32x4.demote_f64x2_zero (local.get $b)))
        (local.set $from (i32.add (local.get $from) (i32.const 32)))
        (local.set $to (i32.add (local.get $to) (i32.const 16)))
        (br $next)))
    (local.set $sum (call $lanes (f64x2.add (local.get $sumA) (local.get $sumB))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $to) (local.get $end)))
        (local.set $value (f64.load (local.get $from)))
        (local.set $change (f64.sub (local.get $value) (f64.promote_f32 (f32.load (local.get $to)))))
        (local.set $sum (f64.add (local.get $sum) (f64.mul (local.get $change) (local.get $change))))
        (f32.store (local.get $to) (f32.demote_f64 (local.get $value)))
        (local.set $from (i32.add (local.get $from) (i32.const 8)))
        (local.set $to (i32.add (local.get $to) (i32.const 4)))
        (br $next)))
    (local.get $sum))

  (func $lanes (param $pair v128) (result f64)
    (f64.add (f64x2.extract_lane 0 (local.get $pair)) (f64x2.extract_lane 1 (local.get $pair))))

  ;; sum[row, x] += left[row, i] · right[i, x], all float64: $rows rows of $width numbers, $stride bytes apart
  ;; at $sum. $rows is a multiple of four, left is [rows, rank], and right stands in tiles of four columns
  ;; [width / 4, rank, 4], then the columns that are left over, [width % 4, rank]: read in one go.
  (func (export "add") (param $sum i32) (param $stride i32) (param $rows i32) (param $width i32)
    (param $left i32) (param $rank i32) (param $right i32)
    (local $leftStride i32) (local $tileBytes i32) (local $tilesEnd i32) (local $rowEnd i32)
    (local $at i32) (local $tile i32)
    (local.set $leftStride (i32.shl (local.get $rank) (i32.const 3)))
    (local.set $tileBytes (i32.shl (local.get $rank) (i32.const 5)))
    (block $done
      (loop $nextRows
        (br_if $done (i32.eqz (local.get $rows)))
        (local.set $at (local.get $sum))
        (local.set $tile (local.get $right))
        (local.set $tilesEnd
          (i32.add
            (local.get $sum)
            (i32.shl (i32.and (local.get $width) (i32.const -4)) (i32.const 3))))
        (local.set $rowEnd (i32.add (local.get $sum) (i32.shl (local.get $width) (i32.const 3))))
        (block $tilesDone
          (loop $nextTile
            (br_if $tilesDone (i32.ge_u (local.get $at) (local.get $tilesEnd)))
            (call $addTile
              (local.get $at) (local.get $stride) (local.get $left) (local.get $leftStride)
              (local.get $tile))
            (local.set $at (i32.add (local.get $at) (i32.const 32)))
            (local.set $tile (i32.add (local.get $tile) (local.get $tileBytes)))
            (br $nextTile)))
        (block $columnsDone
          (loop $nextColumn
            (br_if $columnsDone (i32.ge_u (local.get $at) (local.get $rowEnd)))
            (call $addColumn
              (local.get $at) (local.get $stride) (local.get $left) (local.get $leftStride)
              (local.get $tile))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (local.set $tile (i32.add (local.get $tile) (local.get $leftStride)))
            (br $nextColumn)))
        (local.set $sum (i32.add (local.get $sum) (i32.shl (local.get $stride) (i32.const 2))))
        (local.set $left (i32.add (local.get $left) (i32.shl (local.get $leftStride) (i32.const 2))))
        (local.set $rows (i32.sub (local.get $rows) (i32.const 4)))
        (br $nextRows))))

  ;; Four rows of four columns, which stay in registers for all ranks.
  (func $addTile (param $sum i32) (param $stride i32) (param $left i32) (param $leftStride i32)
    (param $right i32)
    (local $end i32) (local $row1 i32) (local $row2 i32) (local $row3 i32)
    (local $left1 i32) (local $left2 i32) (local $left3 i32)
    (local $a v128) (local $b v128) (local $factor v128)
    (local $s0a v128) (local $s0b v128) (local $s1a v128) (local $s1b v128)
    (local $s2a v128) (local $s2b v128) (local $s3a v128) (local $s3b v128)
    (local.set $row1 (i32.add (local.get $sum) (local.get $stride)))
    (local.set $row2 (i32.add (local.get $row1) (local.get $stride)))
    (local.set $row3 (i32.add (local.get $row2) (local.get $stride)))
    (local.set $end (i32.add (local.get $left) (local.get $leftStride)))
    (local.set $left1 (local.get $end))
    (local.set $left2 (i32.add (local.get $left1) (local.get $leftStride)))
    (local.set $left3 (i32.add (local.get $left2) (local.get $leftStride)))
    (local.set $s0a (v128.load (local.get $sum)))
    (local.set $s0b (v128.load offset=16 (local.get $sum)))
    (local.set $s1a (v128.load (local.get $row1)))
    (local.set $s1b (v128.load offset=16 (local.get $row1)))
    (local.set $s2a (v128.load (local.get $row2)))
    (local.set $s2b (v128.load offset=16 (local.get $row2)))
    (local.set $s3a (v128.load (local.get $row3)))
    (local.set $s3b (v128.load offset=16 (local.get $row3)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $left) (local.get $end)))
        (local.set $a (v128.load (local.get $right)))
        (local.set $b (v128.load offset=16 (local.get $right)))
        (local.set $factor (v128.load64_splat (local.get $left)))
        (local.set $s0a (f64x2.add (local.get $s0a) (f64x2.mul (local.get $factor) (local.get $a))))
        (local.set $s0b (f64x2.add (local.get $s0b) (f64x2.mul (local.get $factor) (local.get $b))))
        (local.set $factor (v128.load64_splat (local.get $left1)))
        (local.set $s1a (f64x2.add (local.get $s1a) (f64x2.mul (local.get $factor) (local.get $a))))
        (local.set $s1b (f64x2.add (local.get $s1b) (f64x2.mul (local.get $factor) (local.get $b))))
        (local.set $factor (v128.load64_splat (local.get $left2)))
        (local.set $s2a (f64x2.add (local.get $s2a) (f64x2.mul (local.get $factor) (local.get $a))))
        (local.set $s2b (f64x2.add (local.get $s2b) (f64x2.mul (local.get $factor) (local.get $b))))
        (local.set $factor (v128.load64_splat (local.get $left3)))
        (local.set $s3a (f64x2.add (local.get $s3a) (f64x2.mul (local.get $factor) (local.get $a))))
        (local.set $s3b (f64x2.add (local.get $s3b) (f64x2.mul (local.get $factor) (local.get $b))))
        (local.set $left (i32.add (local.get $left) (i32.const 8)))
        (local.set $left1 (i32.add (local.get $left1) (i32.const 8)))
        (local.set $left2 (i32.add (local.get $left2) (i32.const 8)))
        (local.set $left3 (i32.add (local.get $left3) (i32.const 8)))
        (local.set $right (i32.add (local.get $right) (i32.const 32)))
        (br $next)))
    (v128.store (local.get $sum) (local.get $s0a))
    (v128.store offset=16 (local.get $sum) (local.get $s0b))
    (v128.store (local.get $row1) (local.get $s1a))
    (v128.store offset=16 (local.get $row1) (local.get $s1b))
    (v128.store (local.get $row2) (local.get $s2a))
    (v128.store offset=16 (local.get $row2) (local.get $s2b))
    (v128.store (local.get $row3) (local.get $s3a))
    (v128.store offset=16 (local.get $row3) (local.get $s3b)))

  ;; Four rows of one column.
  (func $addColumn (param $sum i32) (param $stride i32) (param $left i32) (param $leftStride i32)
    (param $right i32)
    (local $row i32) (local $end i32) (local $at i32) (local $value f64)
    (block $done
      (loop $nextRow
        (br_if $done (i32.eq (local.get $row) (i32.const 4)))
        (local.set $value (f64.load (local.get $sum)))
        (local.set $at (local.get $right))
        (local.set $end (i32.add (local.get $left) (local.get $leftStride)))
        (block $rowDone
          (loop $nextRank
            (br_if $rowDone (i32.ge_u (local.get $left) (local.get $end)))
            (local.set $value
              (f64.add
                (local.get $value)
                (f64.mul (f64.load (local.get $left)) (f64.load (local.get $at)))))
            (local.set $left (i32.add (local.get $left) (i32.const 8)))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br $nextRank)))
        (f64.store (local.get $sum) (local.get $value))
        (local.set $sum (i32.add (local.get $sum) (local.get $stride)))
        (local.set $row (i32.add (local.get $row) (i32.const 1)))
        (br $nextRow)))))
