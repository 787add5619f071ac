#!/usr/bin/env bash
# Measure everything that docs/benchmarks.md and docs/pizo.md show.
#
#   bench/run.sh bundles     export the bundles (about 5 minutes on two cores)
#   bench/run.sh accuracy    stream all images (about 3 hours on two cores)
#   bench/run.sh bits        quantise to fewer bits, and stream images per domain (four hours on two cores)
#   bench/run.sh agreement   gradients by PyTorch (2 minutes)
#   bench/run.sh clip-model  train the CLIP-like model and tune a prompt (half an hour on two cores)
#   bench/run.sh clip        stream images through it, many views of each (two hours on two cores)
#   bench/run.sh clip-speed  time CLIP, on a machine that does nothing else (about 15 minutes)
#   bench/run.sh speed       time, on a machine that does nothing else (about 10 minutes)
#   bench/run.sh tables      rewrite the tables of the documents
#
# Every command may be repeated: interrupted accuracy runs continue.
#
# DATA  folder with models/, imagenet/source/, imagenet/val/ and frost/  (default: $FOZO_TEST_DATA)
# WORK  folder for bundles and unfinished results                        (default: bench-work)
# SEEDS number of seeds of the family                                    (default: 2)
# CLIP_LIST  file with the images of the CLIP-like model, a line each    (default: all, 1,298)
# FOZO, PYTHON  the commands to run                                      (default: fozo, python)
set -euo pipefail

DATA=$(realpath "${DATA:-${FOZO_TEST_DATA:-../shared/data}}")
WORK=$(realpath -m "${WORK:-bench-work}")
SEEDS=${SEEDS:-2}
CLIP_SUBSET=()
if [ -n "${CLIP_LIST:-}" ]; then CLIP_SUBSET=(--subset-list "$(realpath "$CLIP_LIST")"); fi
FOZO=${FOZO:-fozo}
PYTHON=${PYTHON:-python}
BENCH=$(dirname "$(realpath "$0")")

TINY=vit_tiny_patch16_224.augreg_in21k_ft_in1k
WEIGHTS=$DATA/models/$TINY.safetensors
CALM=calm=fozo:shift=origin,shift_update=inclusive,epsilon=0.2,epsilon_min=0.1,rate=0.001,rate_min=0.001,rate_increase=0.0003
FEW=gaussian_noise,motion_blur,snow,contrast,pixelate,clean
FAMILY="no_adapt shift shift_origin neo moments lame t3a fozo $CALM zoa pizo"

bundles() {
  $FOZO export --model $TINY --weights "$WEIGHTS" --classes imagenet --source "$DATA/imagenet/source" --gradients --out tiny --overwrite
  $FOZO export --model vit_base_patch16_224 --random-weights --source "$DATA/imagenet/source" \
    --source-images 32 --gradients --out base --overwrite
}

# usage: adapt NAME PRECISION SETTING SEEDS "METHODS" OPTION…     the bundle is $BUNDLE, or tiny
adapt() {
  local name=$1 precision=$2 setting=$3 seeds=$4 methods=()
  for method in $5; do methods+=(-m "$method"); done
  shift 5
  $FOZO adapt "${BUNDLE:-tiny}" --dataset imagenet-c --generate-from "$DATA/imagenet/val" \
    --frost-textures "$DATA/frost" --severities 5 --batch-size 64 --precision "$precision" \
    --setting "$setting" --seeds "$seeds" "${methods[@]}" "$@" --resume --out "$name.json"
  $PYTHON "$BENCH/compact.py" "$name.json" "$BENCH/results/$name.json"
}

accuracy() {
  adapt family-reset int8 reset "$SEEDS" "$FAMILY" --subset 256
  adapt family-continual int8 continual "$SEEDS" "$FAMILY pizo16=pizo:domains=16 neo16=neo:domains=16" --subset 256
  adapt family-fp32 fp32 reset 1 "no_adapt neo fozo pizo" --subset 256 --corruptions "$FEW"
  adapt pizo-stream int8 reset 1 "no_adapt neo fozo pizo" --corruptions "$FEW"
  cp pizo-stream.png "$BENCH/../docs/gain.png"  # the picture of the README
  adapt gradients int8 reset "$SEEDS" "no_adapt shift_origin neo pizo align align_all=align:gradient_share=1 \
    align4=align:gradient_share=1,learn_every=4"
  $PYTHON "$BENCH/gradient_tables.py"
}

bits() {
  local bits precision
  for bits in w6a6 w4a8 w4a4; do $FOZO quantize tiny "$DATA/imagenet/source" --bits "$bits" --force; done
  for precision in fp32 int8 w6a6 w4a8 w4a4; do
    adapt "bits-$precision" "$precision" reset 3 "no_adapt shift neo fozo zoa moments quar pizo" --subset 256
  done
  for precision in w6a6 w4a4; do
    adapt "bits-long-$precision" "$precision" reset 1 "no_adapt shift neo fozo zoa moments quar pizo"
  done
  local few=(--corruptions "${FEW%,clean}")
  adapt bits-long-foa w6a6 reset 1 "no_adapt foa zoa quar pizo" "${few[@]}"
  adapt bits-long-zoa w6a6 reset 1 "no_adapt zoa zoa2e4=zoa:rate=0.0002 zoa2e3=zoa:rate=0.002 \
    zoa5e3=zoa:rate=0.005,perturbation=0.01" "${few[@]}"
  adapt bits-long-continual w6a6 continual 1 "no_adapt foa zoa2e4=zoa:rate=0.0002" "${few[@]}"
}

agreement() {
  $PYTHON "$BENCH/agreement.py" tiny "$DATA/imagenet/val" --weights "$WEIGHTS" \
    --frost-textures "$DATA/frost" --out "$BENCH/results/pizo-agreement.json"
}

speed() {
  local methods=()
  for method in $FAMILY; do methods+=(-m "$method"); done
  $FOZO bench tiny "${methods[@]}" --precision int8 --precision fp32 --batch-size 64 --workers 2 \
    --samples 3 --out "$BENCH/results/speed-tiny.json"
  $FOZO bench base --torch -m no_adapt -m fozo -m pizo --precision int8 --precision fp32 \
    --batch-size 8 --workers 2 --samples 3 --out "$BENCH/results/speed-base.json"
  $PYTHON "$BENCH/step_speed.py" tiny base --out "$BENCH/results/step-speed.json"
  $FOZO bench base -m no_adapt -m align -m tent --precision int8 --precision fp32 \
    --batch-size 8 --workers 2 --samples 3 --out "$BENCH/results/speed-gradients.json"
}

clip_model() {
  $PYTHON "$BENCH/clip_like.py" --weights "$WEIGHTS" --images "$DATA/imagenet" --out clip-like \
    --results "$BENCH/results/clip-like.json"
  $FOZO quantize clip-like "$DATA/imagenet/source"
  $FOZO tune clip-like --data "$DATA/imagenet/source" --head imagenet --precision int8 --method sapt --shots 1 \
    --epochs 4 --batch 50 --crops 4 --as sapt --out clip-tuning.json --overwrite
}

clip() {
  local few=(--corruptions "$FEW" "${CLIP_SUBSET[@]}") BUNDLE=clip-like
  clip_views embed --out views
  vote clip-one imagenet "no_adapt zero stss tda gauss neo"
  vote clip-ensemble ensemble "no_adapt zero tda gauss neo"
  vote clip-sapt sapt "no_adapt zero stss neo"
  adapt clip-one-pizo int8 reset 1 "no_adapt pizo" --head imagenet "${few[@]}"
  adapt clip-ensemble-pizo int8 reset 1 "no_adapt pizo" --head ensemble "${few[@]}"
  local methods="no_adapt" count
  for count in 8 16 32 64; do methods+=" zero-$count=zero:views=$count stss-$count=stss:views=$count"; done
  vote clip-views imagenet "$methods"
  methods="zero zero-kept-0.1=zero:kept=0.1 zero-kept-0.5=zero:kept=0.5 zero-vote-soft=zero:vote=soft"
  methods+=" zero-block-16=zero:block=16 zero-skip-0.1=zero:skip=0.1"
  for count in 0.05 0.2; do methods+=" zero-block-16,certain-$count=zero:block=16,certain=$count"; done
  methods+=" stss stss-kept-0.3=stss:kept=0.3 stss-vote-soft=stss:vote=soft stss-flatness-0=stss:flatness=0"
  methods+=" stss-radius-0.25=stss:radius=0.25 stss-radius-1=stss:radius=1 stss-block-16=stss:block=16"
  vote clip-settings imagenet "$methods"
}

clip_views() {
  local command=$1
  shift
  $PYTHON "$BENCH/clip_views.py" "$command" clip-like --images "$DATA/imagenet/val" \
    --frost-textures "$DATA/frost" "${CLIP_SUBSET[@]}" "$@"
}

# usage: vote NAME HEAD "METHODS"     after `clip_views embed`
vote() {
  local methods=()
  for method in $3; do methods+=(-m "$method"); done
  clip_views vote --embeddings views --head "$2" "${methods[@]}" --out "$1.json"
  $PYTHON "$BENCH/compact.py" "$1.json" "$BENCH/results/$1.json"
}

clip_speed() {
  local methods=()
  for method in no_adapt zero stss tda gauss pizo neo; do methods+=(-m "$method"); done
  $FOZO bench clip-like "${methods[@]}" --head imagenet --precision int8 --batch-size 16 \
    --workers 2 --samples 2 --out "$BENCH/results/clip-cost.json"
  $FOZO export --clip ViT-B-16 --random-weights --source "$DATA/imagenet/source" --source-images 32 \
    --out clip-base --overwrite
  $PYTHON "$BENCH/clip_speed.py" clip-base "$(ls "$DATA"/imagenet/val/*/* | head -1)" \
    --out "$BENCH/results/clip-speed.json"
  $PYTHON "$BENCH/tuning_speed.py" clip-base --images "$DATA/imagenet/val" \
    --out "$BENCH/results/tuning-speed.json"
}

tables() {
  $PYTHON "$BENCH/tables.py"
}

mkdir -p "$WORK" "$BENCH/results"
cd "$WORK"
for step in "$@"; do
  case $step in
    bundles | accuracy | bits | agreement | clip-model | clip | clip-speed | speed | tables) "${step//-/_}" ;;
    *) echo "expected bundles, accuracy, bits, agreement, clip-model, clip, clip-speed, speed or tables, found $step" >&2; exit 2 ;;
  esac
done
