# ruff: noqa: E501  (prose)
"""What is said to people, in English and Korean: a title and two plain sentences for every rule and remark."""

LANGUAGES = ("en", "ko")

# name: (title en, why en, title ko, why ko)
WORDS: dict[str, tuple[str, str, str, str]] = {
    "divergence": (
        "The training has blown up",
        "A number has become infinite or far too large, and everything computed from it is lost. The steps were too large for the slope under them: smaller ones stay on the road.",
        "학습이 발산했습니다",
        "어떤 값이 무한대가 되었거나 지나치게 커져서 그 값으로 계산한 것은 모두 쓸 수 없습니다. 한 걸음이 너무 컸기 때문이니 더 작은 걸음으로 다시 시작하세요.",
    ),
    "wrong_range": (
        "The training pixels are not what they should be",
        "The generator can only make values from -1 to 1, and the training images are not laid out that way. The discriminator tells the two apart by brightness alone, so the generator learns nothing about shapes.",
        "학습 이미지의 픽셀값이 올바르지 않습니다",
        "생성자는 -1에서 1 사이의 값만 만들 수 있는데 학습 이미지의 값은 그 범위와 맞지 않습니다. 판별자가 밝기만 보고도 진짜와 가짜를 가려내므로 생성자는 형태를 배우지 못합니다.",
    ),
    "altered_images": (
        "The networks are not shown the images that are stored",
        "The images that reach the networks differ from the stored ones by more than chance: something on the way changes them (a transformation, an augmentation of the real ones alone), or they come sorted instead of shuffled. The generator learns what it is shown, and everything here is compared with what is stored.",
        "신경망이 보는 이미지가 저장된 이미지와 다릅니다",
        "신경망에 들어가는 이미지가 저장된 이미지와 우연이라 하기 어려울 만큼 다릅니다. 도중에 무언가가 이미지를 바꾸었거나(변환, 진짜 이미지에만 적용된 증강) 섞이지 않고 정렬된 순서로 들어오고 있습니다. 생성자는 보여 주는 것을 배우는데 점수는 저장된 이미지와 비교해서 매깁니다.",
    ),
    "wrong_output": (
        "The generator's values do not cover the range of the pixels",
        "The training images go from dark to bright, -1 to 1, and the generated ones stay above 0, or go beyond these ends. The generator's last layer is not made for this range (a sigmoid, or nothing, where a tanh belongs), and the discriminator needs to look at nothing else.",
        "생성자의 출력이 픽셀값의 범위와 맞지 않습니다",
        "학습 이미지의 값은 -1(어두움)에서 1(밝음)까지인데 생성된 이미지는 0보다 어두워지지 않거나 그 범위를 벗어납니다. 생성자의 마지막 층이 이 범위에 맞지 않아서(tanh 대신 sigmoid를 쓰거나 아무것도 쓰지 않음) 판별자는 다른 것을 볼 필요가 없습니다.",
    ),
    "wrong_channels": (
        "The images have another number of colour channels than configured",
        "Grey images have one channel, colour images three, and the networks are built for a fixed number. Here the images and the configuration disagree.",
        "이미지의 색 채널 수가 설정과 다릅니다",
        "흑백 이미지는 채널이 하나, 컬러 이미지는 셋이며 신경망은 정해진 채널 수에 맞춰 만들어집니다. 지금은 이미지와 설정이 서로 다릅니다.",
    ),
    "dataset_too_small": (
        "There are very few different photos",
        "With so few different images the discriminator learns each one by heart instead of learning what they have in common. More photos help most; random changes to the ones there are help next.",
        "서로 다른 사진이 너무 적습니다",
        "이미지가 이렇게 적으면 판별자는 공통점을 배우는 대신 한 장 한 장을 외워 버립니다. 사진을 더 모으는 것이 가장 좋고, 그다음은 데이터 증강입니다.",
    ),
    "lr_too_high": (
        "The learning rate is too high",
        "Each update changes the weights so much that it destroys what the one before has learnt. With a smaller learning rate the steps add up instead of cancelling out.",
        "학습률이 너무 높습니다",
        "한 번 업데이트할 때마다 가중치가 너무 크게 바뀌어 앞에서 배운 것을 망가뜨립니다. 학습률을 낮추면 걸음이 서로 상쇄되지 않고 차곡차곡 쌓입니다.",
    ),
    "lr_too_low": (
        "The generator's learning rate is too low",
        "The generator's weights hardly change from one update to the next, so its pictures stay near where they began. With a larger learning rate it gets somewhere within the time of this run.",
        "생성자의 학습률이 너무 낮습니다",
        "업데이트를 해도 생성자의 가중치가 거의 바뀌지 않아 그림이 처음 상태에 머물러 있습니다. 학습률을 높이면 주어진 시간 안에 의미 있는 변화가 생깁니다.",
    ),
    "small_batch_norm": (
        "The batch is too small for batch normalisation",
        "Batch normalisation takes its averages over the batch, and over so few images they are mostly chance. The generator then makes other pictures when it is used than it made while it learnt.",
        "배치 정규화를 쓰기에는 배치가 너무 작습니다",
        "배치 정규화는 배치 안에서 평균을 구하는데 이미지가 이렇게 적으면 그 평균은 거의 우연에 좌우됩니다. 그래서 생성자는 학습할 때와 사용할 때 서로 다른 그림을 만듭니다.",
    ),
    "stale_ema": (
        "The averaged generator lags behind",
        "Samples come from an average of the generator's past weights, and this average reaches too far back: it still holds the early, bad ones. A shorter half-life lets it forget them.",
        "생성자의 이동 평균(EMA)이 뒤처져 있습니다",
        "샘플은 과거 가중치의 이동 평균으로 만드는데 이 평균이 너무 오래전까지 거슬러 올라가 초기의 나쁜 가중치를 아직 담고 있습니다. 반감기를 줄이면 오래된 가중치를 잊습니다.",
    ),
    "d_too_weak": (
        "The discriminator is too weak",
        "The discriminator cannot tell poor pictures from real ones, so it has nothing to teach the generator. It needs to learn faster, or to be held back less.",
        "판별자가 너무 약합니다",
        "판별자가 서툰 그림과 진짜를 구별하지 못하니 생성자에게 가르쳐 줄 것이 없습니다. 판별자가 더 빨리 배우게 하거나 규제를 줄여야 합니다.",
    ),
    "d_too_strong": (
        "The discriminator is too strong",
        "The discriminator is always right, whatever the generator tries, so small improvements earn the generator nothing and it stops learning. The two have to be brought back into balance.",
        "판별자가 너무 강합니다",
        "생성자가 무엇을 시도하든 판별자가 늘 맞히기 때문에 조금 나아져도 보상이 없고 생성자는 더 배우지 못합니다. 둘 사이의 균형을 되찾아야 합니다.",
    ),
    "d_overfits": (
        "The discriminator has learnt the training photos by heart",
        "The discriminator takes photos it has trained on for real and photos it has never seen for fake. What it then teaches the generator is about single photos, not about what they share.",
        "판별자가 학습 사진을 외웠습니다",
        "판별자가 학습에 쓴 사진은 진짜로, 처음 보는 진짜 사진은 가짜로 판단합니다. 그러면 생성자는 사진들의 공통점이 아니라 사진 한 장 한 장의 특징을 배우게 됩니다.",
    ),
    "dead_output": (
        "The generator's output is stuck",
        "The pixels sit at pure black or white, or the whole picture is one flat tone, and there the output layer passes on almost no gradient. The generator has been pushed there by steps that were too large.",
        "생성자의 출력이 굳어 버렸습니다",
        "픽셀이 완전한 검정이나 흰색에 붙어 있거나 그림 전체가 한 가지 톤이고, 그런 상태에서는 출력층이 기울기를 거의 전달하지 못합니다. 너무 큰 걸음이 생성자를 그곳으로 밀어붙였습니다.",
    ),
    "network_too_small": (
        "A network is too small for these pictures",
        "One of the two networks was made so narrow that it cannot hold what is in the pictures, however long it learns. The other one sees through it, or cannot teach it anything more.",
        "신경망이 이 그림들에 비해 너무 작습니다",
        "두 신경망 중 하나의 폭이 너무 좁아서 아무리 오래 학습해도 그림에 담긴 것을 표현하지 못합니다. 그래서 상대 신경망이 쉽게 구별하거나 더 가르쳐 줄 것이 없습니다.",
    ),
    "full_collapse": (
        "The generator makes one and the same image",
        "Whatever noise goes in, nearly the same picture comes out: the generator has found one image that passes and ignores its input. Convolutions, a penalty on the discriminator, or comparing fakes with reals in pairs do not let this pay.",
        "생성자가 한 가지 이미지만 만듭니다 (모드 붕괴)",
        "어떤 노이즈를 넣어도 거의 같은 그림이 나옵니다. 생성자가 통과되는 그림 하나를 찾아 입력을 무시하는 것이며, 합성곱 신경망을 쓰거나 판별자에 규제 항을 더하거나 진짜와 가짜를 짝지어 비교하면 이런 방법이 통하지 않습니다.",
    ),
    "oscillation": (
        "The generator runs in circles",
        "The generator moves from one kind of picture to another and back, and the discriminator follows it, so nothing gets better. Less momentum, a gradient penalty or smaller steps damp this chase.",
        "생성자가 제자리를 맴돕니다",
        "생성자는 한 종류의 그림에서 다른 종류로 옮겨 다니고 판별자는 그 뒤를 쫓기만 하므로 나아지는 것이 없습니다. 모멘텀을 줄이거나 기울기 규제를 넣거나 걸음을 작게 하면 이 쫓고 쫓기기가 잦아듭니다.",
    ),
    "wrong_shapes": (
        "The pictures have the colours of the photos, but not their shapes",
        "To a network that knows what things look like, none of the generated images resembles a photo, though their colours and textures may fit. A few hundred photos are not enough for a discriminator to find out what a shape is; features of a network that has seen a million other photos tell it.",
        "그림의 색은 사진과 비슷하지만 형태가 다릅니다",
        "사물의 생김새를 아는 신경망이 보기에 생성된 이미지 가운데 사진과 닮은 것이 없습니다. 색과 질감은 맞더라도 마찬가지입니다. 사진 몇백 장만으로는 판별자가 형태를 배우기 어려우니, 다른 사진 백만 장을 본 신경망의 특징을 함께 쓰면 됩니다.",
    ),
    "partial_collapse": (
        "The generator makes only part of what is in the data",
        "Large parts of the data have no generated picture near them, and their share is not growing. The generator has settled on a few kinds of picture that pass, because nothing pushes it to try others.",
        "생성자가 데이터의 일부만 만듭니다 (부분 모드 붕괴)",
        "데이터의 넓은 부분에는 생성된 그림이 하나도 없고 그 비율도 늘지 않습니다. 다른 것을 시도할 이유가 없으니 생성자가 통과되는 몇 가지 그림에 안주한 것입니다.",
    ),
    "mode_dropping": (
        "Some kinds of image are never made",
        "One class or group of the real images is missing among the generated ones while the others are there. Either the training images hardly contain it, or leaving it out has cost the generator too little.",
        "만들어지지 않는 종류의 이미지가 있습니다",
        "진짜 이미지 중 한 부류가 생성된 그림에는 없고 나머지는 있습니다. 학습 이미지에 그 부류가 거의 없거나, 그것을 빠뜨려도 생성자가 별로 손해를 보지 않았기 때문입니다.",
    ),
    "checkerboard": (
        "There is a checkerboard pattern in the pictures",
        "Neighbouring pixels alternate in a regular grid that the photos do not have. It comes from upsampling layers whose strokes overlap unevenly; resizing first and convolving afterwards avoids it.",
        "그림에 바둑판무늬가 있습니다",
        "이웃한 픽셀이 사진에는 없는 규칙적인 격자 모양으로 번갈아 나타납니다. 업샘플링 층이 고르지 않게 겹치기 때문이며, 먼저 크기를 키우고 나서 합성곱을 하면 사라집니다.",
    ),
    "copies_photos": (
        "The generated pictures are close to training photos",
        "Generated pictures lie much nearer to single training photos than other real photos do: the near-copy rate is high. There are too few photos for the length of the run, or they are shown without random changes.",
        "생성된 그림이 학습 사진과 거의 같습니다",
        "생성된 그림이 다른 진짜 사진들보다 특정 학습 사진에 훨씬 가까워 거의 복사에 해당하는 비율이 높습니다. 학습 시간에 비해 사진이 너무 적거나 데이터 증강 없이 보여 주었기 때문입니다.",
    ),
    "stuck": (
        "The pictures have stopped getting better",
        "The pictures are still far from the data and have long stopped improving, and none of the known causes fits. This is the change that most often helps with such settings, not a certain diagnosis.",
        "그림이 더 나아지지 않습니다",
        "그림이 아직 데이터와 거리가 먼데 오래전부터 나아지지 않고 있으며 알려진 원인과도 맞지 않습니다. 확실한 진단은 아니지만 이런 설정에서 가장 자주 도움이 되는 변경을 제안합니다.",
    ),
    "stopped_early": (
        "Still improving: go on",
        "Nothing is wrong: the pictures were still getting better when the run ended. Give it more time.",
        "아직 나아지는 중입니다: 계속하세요",
        "잘못된 것은 없습니다. 실행이 끝날 때까지 그림이 나아지고 있었으니 시간을 더 주면 됩니다.",
    ),
    "holdout_off": (
        "Nothing is held out",
        "Without images that training never sees, nobody can tell whether the discriminator learns or memorises. The checks for memorising and copying are off.",
        "따로 떼어 둔 이미지가 없습니다",
        "학습에 쓰지 않는 이미지가 없으면 판별자가 배우는지 외우는지 알 수 없습니다. 그래서 암기와 복사를 찾는 검사는 꺼져 있습니다.",
    ),
    "penalty_with_norm": (
        "A gradient penalty beside batch normalisation",
        "The penalty looks at each image on its own, but batch normalisation mixes the images of a batch. Together they do not do what either promises.",
        "기울기 규제와 배치 정규화를 함께 쓰고 있습니다",
        "기울기 규제는 이미지를 하나씩 따로 보는데 배치 정규화는 배치 안의 이미지를 서로 섞습니다. 둘을 같이 쓰면 어느 쪽도 제 역할을 하지 못합니다.",
    ),
    "stddev_group": (
        "The batch does not divide into the groups of minibatch-stddev",
        "The discriminator compares images in small groups, and this batch size does not divide into them. It falls back to one large group, which is weaker.",
        "배치 크기가 minibatch-stddev 그룹으로 나누어지지 않습니다",
        "판별자는 이미지를 작은 그룹으로 묶어 비교하는데 이 배치 크기는 그룹 크기로 나누어지지 않습니다. 그래서 효과가 약한 하나의 큰 그룹으로 비교합니다.",
    ),
    "augmentation_missing": (
        "Few images and no augmentation",
        "With this few images a discriminator soon knows each of them. Random shifts, colours and cut-outs, alike for real and fake, delay that a lot.",
        "이미지가 적은데 데이터 증강이 없습니다",
        "이미지가 이 정도로 적으면 판별자가 곧 한 장 한 장을 다 외웁니다. 진짜와 가짜에 똑같이 이동, 색, 가리기 변형을 주면 훨씬 늦출 수 있습니다.",
    ),
    "augmentation_leaks": (
        "Nearly every image is augmented",
        "If the discriminator hardly ever sees an image as it is, it cannot teach its true colours and places. Shifts, cut-outs and colours then show in the generated pictures.",
        "거의 모든 이미지에 데이터 증강이 적용됩니다",
        "판별자가 원래 모습 그대로의 이미지를 거의 보지 못하면 진짜 색과 위치를 가르칠 수 없습니다. 그러면 이동, 가리기, 색 변형이 생성된 그림에 나타납니다.",
    ),
    "two_penalties": (
        "Two gradient penalties at once",
        "One penalty pulls the discriminator's slope towards 1 and the other towards 0. Together they hold it back more than either means to.",
        "기울기 규제 두 가지를 함께 쓰고 있습니다",
        "한 규제는 판별자의 기울기를 1로, 다른 규제는 0으로 당깁니다. 둘을 같이 쓰면 판별자가 의도보다 더 묶입니다.",
    ),
    "unpenalised": (
        "This loss needs a gradient penalty",
        "This loss holds the discriminator back only through a penalty on its gradient, and the penalty is off. Without it, its scores can grow without limit or the two networks circle each other.",
        "이 손실 함수에는 기울기 규제가 필요합니다",
        "이 손실 함수는 기울기 규제로만 판별자를 제어하는데 그 규제가 꺼져 있습니다. 규제가 없으면 점수가 끝없이 커지거나 두 신경망이 서로 맴돌 수 있습니다.",
    ),
    "tiny_latent": (
        "The noise vector is very short",
        "Every picture is made from this noise, so with so few numbers there are few ways for pictures to differ. Around 100 is usual.",
        "노이즈 벡터가 너무 짧습니다",
        "모든 그림은 이 노이즈에서 만들어지므로 숫자가 이렇게 적으면 그림이 달라질 여지도 적습니다. 보통 100 정도를 씁니다.",
    ),
}

VERDICTS: dict[str, tuple[str, str]] = {
    "fatal": ("The run cannot go on: {title}.", "더 진행할 수 없습니다: {title}."),
    "fault": ("Most likely cause: {title}.", "가장 유력한 원인: {title}."),
    "warning": (
        "Nothing is broken, but look at this: {title}.",
        "고장은 아니지만 확인이 필요합니다: {title}.",
    ),
    "improving": (
        "No fault was found. Still improving: go on.",
        "문제를 찾지 못했습니다. 아직 나아지는 중이니 계속하세요.",
    ),
    "healthy": ("No fault was found.", "문제를 찾지 못했습니다."),
    "too_early": (
        "Too early to say: let it run for a few hundred steps more.",
        "아직 판단하기 이릅니다. 몇백 스텝 더 진행해 보세요.",
    ),
}

LABELS: dict[str, tuple[str, str]] = {
    "diagnosis": ("Diagnosis", "진단"), "finding": ("what", "무엇이"), "sure": ("sure", "확신"), "since": ("since", "언제부터"),
    "evidence": ("the numbers", "근거"), "change": ("change", "바꿀 것"), "passed": ("Checked and fine", "검사했고 이상 없음"),
    "off": ("Could not be checked", "검사할 수 없음"), "next": ("Next", "다음 명령"), "gone": ("gone again", "사라짐"),
    "new": ("new finding", "새로 발견"), "remark": ("before the start", "시작 전 확인"), "why": ("why", "이유"),
    "more": ("Less certain, in diagnosis.md", "덜 확실한 것 (diagnosis.md에 있음)"),
}  # fmt: skip


def _pick(pair: tuple[str, ...], language: str) -> str:
    return pair[LANGUAGES.index(language) if language in LANGUAGES else 0]


def title(name: str, language: str = "en") -> str:
    """A short headline for a rule or remark."""
    return _pick(WORDS[name][0::2], language)


def why(name: str, language: str = "en") -> str:
    """Two plain sentences: why it happens."""
    return _pick(WORDS[name][1::2], language)


def label(name: str, language: str = "en", **values: str) -> str:
    """A verdict or a table's heading."""
    return _pick(VERDICTS.get(name) or LABELS[name], language).format(**values)
